//! The names of programs and shell builtins, by how likely they are to be words of prose. The lists are sorted.

use crate::words::words;

/// How a program's name is used outside of shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Hardly ever.
    Rare,
    /// As the name of a product or language that people write about.
    Product,
    /// As a word.
    English,
}

static RARE: &[&str] = words!(
    "7z 7za 7zr a2enmod aa-exec addr2line adduser agetty ansible-console ansible-doc ansible-galaxy ansible-inventory
     ansible-playbook ansible-pull ansible-vault aoss apport-cli apt-cache apt-get apt-key apt-mark aptitude ar
     aria2c arp arping as86 atobm awk axel base32 base58 base64 basenc bashbug bc bcdboot bconsole bdftopcf blkid
     bpftrace bridge bsdtar bundler bunzip2 busctl busybox byebug bzcat bzcmp bzdiff bzegrep bzgrep bzip2 bzless
     bzmore c89 c99 cabal capsh cargo cd certbot chage chattr chef-apply chef-client chef-run chef-shell chef-solo
     chfn chgrp chmod choom chown chpasswd chroot chsh cksum cobc comm compgen cowsay cowthink cp cpan cpio cpulimit
     crackmapexec create_user crontab cscli csh csplit csvtool cupsfilter curl dash dd delgroup deluser df dhclient
     dialog diff3 dig dircolors dirname dmenu dmesg dmidecode dmsetup dnf dos2unix dosbox dpkg dpkg-query dstat du
     dvips easy_install easyrsa ebtables echo ed efax egrep elvish emerge eqn esac espeak ethtool eval exiftool expr
     facter fallocate fcrackzip fdisk fgrep fish_key_reader flock fmt fping fsck fstat ftp fusermount gawk gcc gcore
     gdb genie genisoimage getcap getent getfacl getopts ghci gimp git-shell gpasswd gpg gpg2 gpgconf grep groupadd
     groupdel groupmod grub-install gtester gunzip gzcat gzexe gzip hexdump hexedit highlight hostid hostname
     hostnamectl hping3 htdigest htop htpasswd hwclock iconv id ifconfig ifdown iftop ifup insmod ioctl ionice iostat
     ip6tables ipconfig ipcs iptables iptables-save irb ispell jjs joe journalctl jq jrunscript julia kexec killall
     knife ksh ksshell kubectl lastcomm lastlog lastlogin latexmk ldapsearch ldconfig ldd lessecho lessfile lesspipe
     lftp ln loginctl logname logsave losetup lpstat ls ls-f lsattr lsb_release lsblk lscpu lshw lsmod lsns lsof
     lspci lsusb ltex ltrace lua luajit lualatex luatex lwp-download lwp-dump lwp-mirror lwp-request lynx lz4 lz4cat
     lzcat lzcmp lzdiff lzegrep lzfgrep lzgrep lzless lzma lzmore lzop mailq mailx mawk md5sum mkdir mkfifo mkfs
     mknod mkpasswd mksh mktemp mlocate mlr modprobe mosh mpstat msgattrib msgcat msgconv msgfilter msgmerge msguniq
     mtr mutt mv mysqladmin mysqldump mysqldumpslow mysqlhotcopy mysqlimport mysqlshow nasm nawk nc nc.openbsd
     nc.traditional ncat ncdu ndiff neofetch netkit-ftp netplan netstat newgrp nft ngrep nl nmap nohup nping npx
     nroff nsenter nslookup nstat objdump octave od onintr openvt opkg p7zip pandoc passwd pax pdb pdflatex pdftex
     pdksh perf perlbug perldoc pexec pftp pg_dump pg_dumpall pg_restore pgrep php-cgi php5 php7 php8 phpize pico
     pidof pidstat ping6 pip3 pkexec pkg_info pkill pmap popd pprof pr printenv printf prlimit proftpd ps psed psftp
     psql ptar ptardiff ptargrep ptx ptyx pushd pwd pwsh python2 python3 pyvenv r2 rake rbash rcp rdist readelf
     readlink realpath reboot redis-cli renice restic rlogin rlwrap rm rmdir rmmod rmuser rnano rpm rpmdb rpmquery
     rpmverify rsh rsync rsyslogd rtorrent run-mailcap run-parts runc rview rvim sched scp screenfetch scrot sdiff
     sed sendmail setarch setenv setfacl setpriv setsid sftp sh sha1sum sha224sum sha256sum sha384sum sha512sum
     shellcheck shred shuf slsh smbclient smbmap snmpget snmpwalk socat sqlite3 sqlmap sqlplus ss ssh-agent
     ssh-keygen ssh-keyscan sshd sshfs sshpass start-stop-daemon stdbuf strace stty su sudo sysctl systemctl
     systemd-resolve tac tailf taskset tasksh tbl tclsh tcpdump tcping tcptraceroute tcsh tdbtool tee telnet tex tftp
     timedatectl tmux tr traceroute traceroute6 troff tshark ul ulimit umask umount unalias uname uncompress unexpand
     unlz4 unlzma unpigz unrar unset unshare unsquashfs unxz unzip unzstd update-alternatives updatedb uptime useradd
     userdel usermod uudecode uuencode vagrant valgrind vdir vgimport vi viewnior vigr vimdiff vipw virsh visudo
     vmstat volatility w3m wc wget wget2 whatis whoami whois wireshark wish xargs xelatex xetex xmodmap xmore xpad
     xterm xxd xz xzcat xzcmp xzdec xzdiff xzegrep xzfgrep xzgrep xzless xzmore yarn yash yelp ypcat yum zathura zcat
     zcmp zdiff zegrep zfgrep zgrep zipcloak zipdetails zipgrep zipinfo zipnote zipsplit zless zmore znew zrun zsh
     zsoelim zstd zstdcat zstdgrep zstdless zstdmt zypper"
);

static PRODUCT: &[&str] = words!(
    "ab acr alpine ansible ant apache2 apache2ctl apk apt arch aspell atom aws az bash bats brew bun bundle cat clang
     cmake composer consul cvs deno doas docker docker-compose dotnet emacs erl ffmpeg firefox fish flask g++ gcloud
     gem ghc git go gradle groovy helm heroku java javac jexec links lp lpr mariadb maven minicom mongo mongod mysql
     mysqld nano nginx ninja node nodejs npm nvim openssl openvpn pacman perl php pip pkg pnpm podman postgres puppet
     python qemu rar ruby rust rustc rustup scala snap sqlite ssh svn swift tar terraform torify vim wine winrm
     xdg-open zip"
);

static ENGLISH: &[&str] = words!(
    "alias ash at basename batch bg bind break builtin cal calendar cancel case cc chronic clear cmp column command
     compress continue crash crowbar cut date declare diff dir disown do dump enable env ex exec exit expand expect
     export factor false fc fetch fg fi file find finger fold free ginsh gnuplot groups halt hash head help history
     host info install ip jed jobs join kill last ld less let link local locate log logger login look mail make man
     more mount msg nice nmcli open osascript paste patch pic pick ping poweroff pry rc read red rename rev route
     runscript scanmem screen script seq service set shift shutdown sleep sort source split start stat strings sum
     suspend sync tail tcl test time timeout top touch trap true truncate type typeset uniq unlink users view w wait
     wall watch where which while whiptail who write xpand yafc yes zed"
);

/// Programs that start another one.
pub(super) static WRAPPERS: &[&str] = words!(
    "busybox chroot command do doas env eval exec ionice nice nohup setsid stdbuf sudo then time timeout unbuffer
     xargs"
);

/// What kind of name this is, if it is a program's. A version behind the name does not matter: `gcc10.1`, `python3.8`.
pub(super) fn class(word: &str) -> Option<Class> {
    let word = word.rsplit('/').next().unwrap_or(word).trim_end_matches([',', '$', ']']);
    if word.is_empty() || word.len() > 24 {
        return None;
    }
    let known = |word: &str| {
        [(RARE, Class::Rare), (PRODUCT, Class::Product), (ENGLISH, Class::English)]
            .into_iter()
            .find_map(|(list, class)| crate::view::listed(list, word).then_some(class))
    };
    known(word).or_else(|| {
        let bare = word.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        if bare.len() < word.len() && bare.len() > 1 { known(bare) } else { None }
    })
}

#[cfg(test)]
#[test]
fn lists_are_sorted_and_apart() {
    for list in [RARE, PRODUCT, ENGLISH] {
        assert!(list.is_sorted());
    }
    for word in RARE {
        assert!(!PRODUCT.contains(word) && !ENGLISH.contains(word), "{word}");
    }
}
