//! Path traversal, files that nobody should ask for, and uploads that a server would run.

use crate::catalogue::Rule;
use crate::cut;
use crate::parts::Place;
use crate::view::{Hits, View, excerpt, prefixes, prose_words};
use crate::words::{List, words};

/// What a path may begin behind, in a text.
const BEGINS_PATH: &[u8] = b"/=:(<>@|`,;";

/// What it takes, in steps, to look at the beginning of a path.
const BEGINNING: usize = 60;

/// In a value with this many plain words, a path is probably being talked about.
const PROSE: usize = 6;

/// Files and folders of operating systems, from their root.
static SYSTEM: &List = &List::of(words!(
    "autoexec.bat boot/grub boot/vmlinuz config.sys dev/fd/ dev/kmem dev/mem dev/sda dev/shm/ etc/aliases etc/apache2
     etc/bash etc/cron. etc/crontab etc/debian_version etc/default/ etc/docker etc/environment etc/exports etc/fstab
     etc/ftpusers etc/group etc/hostname etc/hosts etc/httpd etc/inetd.conf etc/init etc/issue etc/kubernetes
     etc/ld.so etc/ldap etc/logrotate etc/lsb-release etc/machine-id etc/mail/ etc/motd etc/mtab etc/my.cnf etc/mysql
     etc/networks etc/nginx etc/openldap etc/opt/ etc/os-release etc/pam.d etc/php etc/postgresql etc/profile
     etc/proftpd etc/rc. etc/redhat-release etc/redis etc/resolv.conf etc/rsyslog etc/samba etc/security etc/services
     etc/shells etc/ssh etc/ssl etc/subgid etc/subuid etc/sysctl etc/syslog etc/systemd etc/vsftpd etc/wpa_supplicant
     inetpub/ ntldr opt/bitnami opt/lampp pagefile.sys private/etc/ proc/1/ proc/cmdline proc/cpuinfo proc/devices
     proc/filesystems proc/interrupts proc/kallsyms proc/kcore proc/meminfo proc/modules proc/mounts proc/mtrr
     proc/net/ proc/partitions proc/sched proc/stat proc/sys/ proc/uptime proc/version programdata/microsoft
     sys/block sys/bus/ sys/class sys/devices sys/firmware sys/fs/ sys/hypervisor sys/kernel sys/module sys/power
     sysprep.inf system/library/coreservices system32/config system32/drivers unattend.xml usr/etc/ usr/lib/cgi-bin
     usr/local/apache usr/local/bin/ usr/local/etc/ usr/local/nginx usr/sbin/ var/adm/ var/backups var/cache/ var/db/
     var/lib/docker var/lib/kubelet var/lib/mysql var/log/ var/mail/ var/run/ var/spool/ var/www/ wamp/ windows/debug
     windows/microsoft.net windows/panther windows/php.ini windows/repair windows/system32 windows/syswow64 winnt/
     xampp/"
));

/// Those of them that nobody mentions by accident.
static CRITICAL: &List = &List::of(words!(
    "boot.ini dev/tcp/ dev/udp/ etc/gshadow etc/master.passwd etc/passwd etc/shadow etc/sudoers ntds.dit proc/self
     root/. run/secrets win.ini windows/system.ini windows/win.ini"
));

/// Folders of which any file is suspicious only when it is the whole value.
static SYSTEM_ALONE: &List = &List::of(&["dev/", "etc/", "proc/", "root/", "sys/", "tmp/", "var/tmp/"]);

/// Files and folders that hold secrets or configuration.
static SECRET: &List = &List::of(words!(
    ".aider .ansible/ .aws/ .azure/ .bash_history .bash_logout .bash_profile .bashrc .boto .bundle/ .bzr/ .cargo/
     .circleci/ .claude/ .composer/ .config/ .continue/ .cshrc .curlrc .cursor/ .cvs .docker/ .dockercfg
     .dockerignore .drone .ds_store .env .fetchmailrc .forward .gcloud/ .gem/ .git-credentials .git/ .gitattributes
     .gitconfig .github/ .gitignore .gitlab .gitmodules .gnupg/ .hg/ .htaccess .htdigest .htgroup .htpasswd .idea/
     .jenkins .kshrc .kube/ .lesshst .local/share/ .m2/ .mozilla/ .muttrc .my.cnf .mysql_history .netrc
     .node_repl_history .npmrc .password-store/ .pgpass .pki/ .profile .psql_history .pypirc .python_history
     .rediscli_history .rhosts .s3cfg .sh_history .shosts .sqlite_history .ssh/ .subversion/ .svn/ .terraform .tmux
     .travis.yml .user.ini .vagrant .vault .viminfo .vimrc .vscode/ .wgetrc .wp-config .yarnrc .zed/ .zsh_history
     .zshrc appsettings.json authorized_keys config/database.php configuration.php credentials.json database.yml
     dockerfile global.asa id_dsa id_ecdsa id_ed25519 id_rsa keystore.jks localsettings.php master.key parameters.yml
     phpinfo.php privkey.pem sam.bak secrets.yml server.key sftp-config.json terraform.tfstate tomcat-users.xml
     web-inf/ web.config wp-config"
));

/// Endings of files that stay behind on a server and are nobody's business.
static LEFTOVER: &[&str] = words!(
    ".backup .bak .bash .cfg .cnf .conf .core .db .dist .dump .env .htaccess .htpasswd .inc .ini .jks .kdbx .key
     .keystore .lck .lock .log .mdb .old .orig .ovpn .p12 .passwd .pem .pfx .ppk .pwd .rdp .rej .sav .save .sql
     .sqlite .sqlite3 .swo .swp .temp .tfstate .tfvars .tmp ~"
);

/// Endings of uploads that a server would run or obey.
static EXECUTABLE: &List = &List::of(words!(
    ".asa .ascx .ashx .asmx .asp .aspx .cdx .cer .cfc .cfm .cfml .cgi .config .cshtml .htaccess .htpasswd .jsp .jspa
     .jspf .jspx .jsv .jsw .pgif .phar .php .php3 .php4 .php5 .php7 .php8 .phps .pht .phtm .phtml .shtml .user.ini
     .vbhtml .war"
));

static WRAPPERS: &List = &List::of(words!(
    "bzip2:// compress.zlib:// data://text data:text/plain;base64,pd9wa dict:// expect:// file:/// file://localhost
     glob:// gopher:// jar:file jar:http ldap://127. local_file: netdoc: ogg:// phar:// php:// rar:// ssh2. tftp://
     view-source:file zip:// zlib://"
));

pub(crate) fn inspect(view: &View<'_>, hits: &mut Hits) {
    let path = normal(view.lower);
    if !view.work.spend(path.bytes().filter(|byte| BEGINS_PATH.contains(byte)).count() * BEGINNING) {
        return;
    }
    traversal(view, hits);
    for (at, _) in view.find_any(WRAPPERS, view.lower) {
        hits.add(Rule::LfiWrapper, excerpt(view.text, at, 60));
    }
    let mention = |rule| if prose_words(view.text) < PROSE { rule } else { Rule::LfiMention };
    let whole = if view.place == Place::Path { None } else { whole(&path) };
    if let Some(at) = find(&path, CRITICAL).or(whole) {
        hits.add(Rule::LfiSystem, excerpt(&path, at, 60));
    }
    if let Some(at) = find(&path, SYSTEM) {
        hits.add(mention(Rule::LfiSystem), excerpt(&path, at, 60));
    }
    if let Some(at) = find(&path, SECRET) {
        hits.add(mention(Rule::LfiSecret), excerpt(&path, at, 60));
    }
    if view.place == Place::Path {
        requested(&path, hits);
    }
}

/// One spelling for every spelling of a path: forward slashes, none doubled, no `.` segments, no parameters of segments,
/// no quotes or null bytes.
fn normal(lower: &str) -> String {
    let mut out = String::with_capacity(lower.len());
    for c in lower.chars() {
        match c {
            '\\' | '/' => {
                while out.ends_with("/.") {
                    out.truncate(out.len() - 2);
                }
                if !out.ends_with('/') {
                    out.push('/');
                }
            }
            '\'' | '"' | '\0' | '^' => {}
            _ => out.push(c),
        }
    }
    out
}

/// Where one of the list's entries begins a path: behind a separator, or at the start of a value without spaces.
fn find(path: &str, list: &List) -> Option<usize> {
    let alone = !path.contains(char::is_whitespace);
    let mut before = if alone { b'/' } else { b' ' };
    for (at, byte) in path.bytes().enumerate() {
        if BEGINS_PATH.contains(&before) {
            let rest = cut::from(path, at);
            let complete = |entry: &str| {
                !entry.ends_with(|c: char| c.is_ascii_alphanumeric())
                    || !cut::from(rest, entry.len()).starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
            };
            if prefixes(list, rest).any(complete) {
                return Some(at);
            }
        }
        before = byte;
    }
    None
}

/// A value that is nothing but a path below one of the system's folders.
fn whole(path: &str) -> Option<usize> {
    let path = path.trim().trim_start_matches(['<', '>']);
    let rooted = path.strip_prefix('/')?;
    let folder = SYSTEM_ALONE.iter().find(|folder| rooted.starts_with(**folder))?;
    (!path.contains(char::is_whitespace) && rooted.len() > folder.len()).then_some(0)
}

fn traversal(view: &View<'_>, hits: &mut Hits) {
    let bytes = view.text.as_bytes();
    let alone = !view.text.trim().contains(char::is_whitespace);
    let mut steps = 0;
    let mut at = 0;
    while let Some(dots) = cut::from(view.text, at).find("..").map(|found| found + at) {
        let end = dots + bytes.iter().skip(dots).take_while(|byte| **byte == b'.').count();
        at = end;
        let separator = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'/' | b'\\'));
        let before = dots.checked_sub(1).and_then(|before| bytes.get(before));
        let starts = before
            .is_none_or(|byte| matches!(byte, b'/' | b'\\' | b';' | b'=' | b'"' | b'\'' | b':' | b'(' | b',' | b' '));
        let after = bytes.get(end);
        let ends = separator(after) || (after == Some(&b';') && separator(bytes.get(end + 1)));
        let closed = after.is_none() && separator(before);
        if end - dots > 3 || !(starts && ends || closed && steps > 0) {
            continue;
        }
        steps += 1;
        let found = excerpt(view.text, dots, 60);
        if steps > 1 || alone && !url(view.lower) {
            hits.add(Rule::LfiTraversal, found);
        } else {
            hits.add(Rule::LfiStep, found);
        }
    }
    if steps == 0 && !view.lower.contains(['%', '\u{2215}', '\u{2216}', '\u{2044}']) && !view.lower.contains("0x2e") {
        return;
    }
    // Steps with something in between that a server drops: `..;/`, `.%00./`, `0x2e0x2e/`.
    let spelled = view.lower.replace("0x2e", ".").replace("0x2f", "/").replace("0x5c", "\\");
    for odd in [
        "..;.\\",
        "..;/",
        "/..0/",
        "..%c0",
        "..%5c",
        "..%2f",
        ".%2e/",
        "%2e%2e",
        "..\u{2215}",
        "..\u{2216}",
        "..\u{2044}",
    ] {
        if spelled.contains(odd) {
            hits.add(Rule::LfiTraversal, odd);
        }
    }
    if spelled.len() != view.lower.len() && (spelled.contains("../") || spelled.contains("..\\")) {
        hits.add(Rule::LfiTraversal, excerpt(view.text, 0, 60));
    }
}

fn url(lower: &str) -> bool {
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// Hidden files and leftovers in the path that was asked for.
fn requested(path: &str, hits: &mut Hits) {
    for segment in path.split('/') {
        let hidden =
            segment.strip_prefix('.').filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        if hidden.is_some_and(|rest| !rest.starts_with("well-known")) {
            hits.add(Rule::LfiHidden, segment);
        }
    }
    let last = path.rsplit('/').next().unwrap_or_default().trim_end_matches([' ', '.']);
    if LEFTOVER.iter().any(|ending| last.len() > ending.len() && last.ends_with(ending)) {
        hits.add(Rule::LfiLeftover, last);
    }
}

/// The name of an uploaded file.
pub(crate) fn upload_name(view: &View<'_>, hits: &mut Hits) {
    let name: String = view.lower.chars().filter(|c| !c.is_whitespace() && *c != '\0').collect();
    let name = name.split(&[';', ':'][..]).next().unwrap_or_default().trim_end_matches('.');
    let ends = |at: usize, ending: &str| matches!(cut::byte(name, at + ending.len()), None | Some(b'.'));
    let inner =
        name.match_indices('.').any(|(at, _)| prefixes(EXECUTABLE, cut::from(name, at)).any(|ending| ends(at, ending)));
    let hidden = name.rsplit(['/', '\\']).next().is_some_and(|last| last.starts_with('.') && last.len() > 1);
    if inner || hidden || find(&normal(name), SECRET).is_some() {
        hits.add(Rule::RceUpload, view.text);
    }
}

/// The content of an uploaded file: only what a server would run, for a file may hold anything else.
pub(crate) fn upload(view: &View<'_>, hits: &mut Hits) {
    for code in ["<?php", "<?=", "<%@ page", "<% eval", "<%eval", "<script runat=", "<script language=\"php\"", "<jsp:"]
    {
        if let Some(at) = view.lower.find(code) {
            hits.add(Rule::RceUpload, excerpt(view.text, at, 60));
        }
    }
}

#[cfg(test)]
#[test]
fn lists_are_sorted() {
    for list in [SYSTEM, CRITICAL, SECRET, EXECUTABLE, WRAPPERS] {
        assert!(list.is_sorted());
    }
}
