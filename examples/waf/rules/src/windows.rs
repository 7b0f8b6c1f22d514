//! Command injection for Windows: the batch language of cmd.exe, its programs, and PowerShell. None of it minds case.

use crate::catalogue::Rule;
use crate::cut;
use crate::parts::Place;
use crate::view::{Hits, View, excerpt, is_word, listed, prefixes, prose_words};
use crate::words::{List, words};

/// Programs that come with Windows and are hardly ever words of prose.
static PROGRAMS: &[&str] = words!(
    "adfind adplus advpack.dll appvlp arp assoc at.exe atbroker attrib auditpol bcdboot bcdedit bginfo bitsadmin
     bootcfg cacls call cdb certoc certreq certutil change.exe chkdsk chkntfs cipher cls cmd cmd.exe cmdkey cmdl32
     cmstp comsvcs.dll conhost control.exe convert.exe copy csc.exe cscript csvde dcdiag defrag del desktopimgdownldr
     dfsvc diantz dir diskpart diskshadow dism dnscmd doskey driverquery dsacls dsadd dsget dsmod dsquery dsrm dxcap
     echo endlocal erase esentutl eventcreate eventvwr expand.exe explorer.exe extexport extrac32 findstr finger.exe
     forfiles format.com fsutil ftp.exe ftype getmac goto gpresult gpscript gpupdate hh.exe hostname icacls ie4uinit
     ieexec ilasm infdefaultinstall installutil ipconfig jsc.exe klist ksetup label.exe ldifde lodctr logoff makecab
     mavinject md md.exe mklink mmc mode.com mountvol move mpcmdrun msbuild msconfig msdt mshta msiexec nbtstat net
     net1 netdom netsh netstat nltest nslookup ntdsutil odbcconf openfiles path pathping pause pcalua pcwrun pktmon
     pnputil popd powercfg powershell powershell.exe presentationhost print.exe prndrvr prnport psexec pushd
     pushprinterconnections pwlauncher pwsh qappsrv qprocess quser qwinsta rasautou rasdial rasphone rcsi rd reg
     reg.exe regasm regedit regedt32 regini regsvcs regsvr32 relog ren repadmin robocopy route.exe rpcping runas
     rundll32 runonce rwinsta sc sc.exe schtasks scriptrunner secedit servermanagercmd setlocal setspn setx sfc
     sigverif ssh.exe stordiag subst syncappvpublishingserver systeminfo takeown taskkill tasklist taskmgr taskschd
     telnet title tpmvscmgr tracerpt tracert tree tree.com tscon tsdiscon ttdinject type typeperf tzutil ver verclsid
     verifier vol vssadmin w32tm wab.exe waitfor wbadmin wecutil wevtutil whoami winget winnt32 winrm winrs winsat
     wmic workfolders wscript wsl wsmprovhost wsreset wuauclt wusa xcopy xwizard zipfldr.dll"
);

/// Those of them that are words after all: they need arguments that look like it.
static WORDS: &[&str] = words!(
    "attrib call cipher copy del dir echo erase finger goto hostname md mmc move net path pause rd reg ren route sc
     subst title tree type ver verifier vol waitfor"
);

/// Verbs of PowerShell's cmdlets.
static VERBS: &[&str] = words!(
    "add clear compare complete compress connect convert convertfrom convertto copy debug disable disconnect enable
     enter exit expand export foreach format get group import install invoke join limit measure mount move new out
     ping pop publish push read receive register remove rename repair reset resolve restart restore resume save
     select send set show sort split start stop suspend tee test trace unblock uninstall unregister update wait where
     write"
);

/// What a cmdlet's noun begins with.
static NOUNS: &List = &List::of(words!(
    "acl adcomputer addomain adforest adgroup adtrust aduser alias apppackage appx authenticode bitlocker
     bitstransfer childitem cimclass ciminstance cimsession clipboard clixml command computer content counter
     credential csv culture date disk dns driver event executionpolicy expression file firewall formatdata help
     history host hotfix html item job json list localgroup localuser location member module mpcomputer mppreference
     mpthreat net null object output package partition path pfx printer process property psbreakpoint psdrive
     psprovider psreadline psrepository pssession pssnapin random restmethod restricted runspace scheduled
     securestring service shortcut smb string table tpm trace transcript type uiculture unique variable verb volume
     warning webrequest wevent windowsfeature windowsoptional winevent wmi wsman xml"
));

/// What PowerShell runs downloaded or hidden commands with.
static POWERSHELL: &List = &List::of(&[
    "-encodedcommand",
    "-executionpolicy bypass",
    "-windowstyle hidden",
    "[scriptblock]",
    "[system.io.file]",
    "downloadfile(",
    "downloadstring(",
    "frombase64string",
    "iex",
    "invoke-expression",
    "invoke-webrequest",
    "iwr",
    "new-object net.webclient",
    "new-object system.net",
    "start-process ",
]);

/// What it takes, in steps, to look at a cmdlet's name.
const CMDLET: usize = 250;

/// What it takes, in steps, to look at a command.
const SEGMENT: usize = 200;

/// What a condition or a loop may run.
static STATEMENTS: &[&str] =
    words!("call cmd copy del dir echo else erase exit for goto if md move pause rd rem ren set start type");

pub(crate) fn inspect(view: &View<'_>, hits: &mut Hits) {
    if !view.lower.bytes().any(|byte| matches!(byte, b' ' | b'-' | b'&' | b'|' | b'\\' | b'%' | b';' | b'\n')) {
        return;
    }
    programs(view, hits);
    loops(view, hits);
    conditions(view, hits);
    powershell(view, hits);
}

/// Programs behind a separator, or at the start with arguments.
fn programs(view: &View<'_>, hits: &mut Hits) {
    let carets: String = view.lower.chars().filter(|c| !matches!(c, '^' | '"')).collect();
    let few = prose_words(view.text) < 7;
    let header = matches!(view.place, Place::Header | Place::UserAgent);
    let mut start = true;
    let segments = carets.split(['&', '|', ';', '\n', '\r', '`']);
    for segment in segments.take_while(|_| view.work.spend(SEGMENT)) {
        let words = segment.trim_start_matches(|c: char| c.is_whitespace() || "(@'\\".contains(c));
        let end = words.find(|c: char| c.is_whitespace() || "<>(),/='".contains(c)).unwrap_or(words.len());
        let (name, arguments) = words.split_at(end);
        let file = name.rsplit('\\').next().unwrap_or(name);
        let full = file.len() < name.len();
        let bare = file.strip_suffix(".exe").unwrap_or(file);
        let known = listed(PROGRAMS, file) || listed(PROGRAMS, bare);
        let switch = arguments.split_whitespace().take(16).any(is_switch);
        let trailing = arguments.trim_start();
        let direct = arguments.starts_with('/') && !arguments.starts_with("//") && !full && listed(PROGRAMS, file);
        let path =
            trailing.contains(":\\") || trailing.contains("%") && trailing.contains('\\') || trailing.contains(" \\\\");
        let pair = matches!(bare, "net" | "sc" | "reg" | "wmic" | "netsh")
            && [
                "user",
                "use",
                "view",
                "localgroup",
                "group",
                "start ",
                "stop ",
                "accounts",
                "share",
                "query",
                "add",
                "delete",
                "export",
                "save",
                "config",
                "create",
                "process",
                "os ",
                "advfirewall",
                "interface",
                "wlan",
            ]
            .iter()
            .any(|word| trailing.starts_with(word));
        let rare = !listed(WORDS, bare);
        let shaped = switch || path || pair && (!start || rare) || direct;
        let ended = trailing.trim_matches(['\'', '"', ')']).is_empty();
        if known && !arguments.starts_with(['=', ':', ',', '(']) {
            let strong = if start {
                few && !header && shaped && (rare || switch && path)
            } else {
                shaped || rare && (ended || few && !header)
            };
            if strong && (few || shaped) {
                hits.add(Rule::RceCommand, excerpt(segment.trim(), 0, 60));
            }
        }
        start = false;
    }
    for (at, before, _) in view.occurrences(view.lower, ".exe") {
        let name = cut::until(view.lower, at)
            .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .next()
            .unwrap_or_default();
        let rest = excerpt(view.lower, at + 4, 120);
        let switched =
            rest.starts_with(' ') && rest.split_whitespace().take(4).any(is_switch) || rest.starts_with("+/c");
        if before.is_some_and(is_word) && listed(PROGRAMS, name) && switched {
            hits.add(Rule::RceCommand, excerpt(view.text, at - name.len(), 60));
        }
    }
}

/// `/c`, `-urlcache`, `/S:x`.
fn is_switch(word: &str) -> bool {
    let rest = word.strip_prefix('/').or_else(|| word.strip_prefix('-'));
    rest.is_some_and(|rest| {
        let name = rest.split([':', '=']).next().unwrap_or_default();
        name == "?" || !name.is_empty() && name.len() < 16 && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    })
}

/// `for /f "delims=" %a in (…) do …`.
fn loops(view: &View<'_>, hits: &mut Hits) {
    if !view.text.contains('%') {
        return;
    }
    for (at, before, after) in view.occurrences(view.lower, "for") {
        if before.is_some_and(is_word) || after.is_none_or(is_word) {
            continue;
        }
        let rest = view.look(view.lower, at + 3, 512, 8);
        let Some((options, variable)) = rest.split_once('%') else { continue };
        let clean = options.trim_start().is_empty() || options.trim_start().starts_with(['/', '"', '\\']);
        let Some((_, set)) = variable.split_once(" in") else { continue };
        let set = set.trim_start();
        let runs = set.starts_with('(')
            && set.rsplit_once(')').is_some_and(|(_, behind)| {
                behind.trim_start().starts_with("do")
                    || set.contains(")do")
                    || set.contains(") do")
                    || set.contains("do ")
            });
        if clean && runs {
            hits.add(Rule::RceWindows, excerpt(view.text, at, 60));
        }
    }
}

/// `if /i not "%a%"=="x" …`, `if exist file …`, `if defined x …`, `if a equ b …`.
fn conditions(view: &View<'_>, hits: &mut Hits) {
    for (at, before, after) in view.occurrences(view.lower, "if") {
        if before.is_some_and(is_word) || !after.is_some_and(|byte| byte.is_ascii_whitespace() || byte == b'/') {
            continue;
        }
        let rest = view.look(view.lower, at + 2, 512, 16).trim_start();
        let found = excerpt(view.text, at, 60);
        let (insensitive, rest) = match rest.strip_prefix("/i ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, rest),
        };
        let negated = rest.strip_prefix("not ").map(str::trim_start);
        let rest = negated.unwrap_or(rest);
        let tail = |words: usize| {
            rest.split_whitespace().skip(words).any(|word| {
                let word = word.trim_start_matches(['(', '@', ')']);
                STATEMENTS.contains(&word.trim_end_matches([')', ':']))
            })
        };
        let parenthesised = rest.contains(" (") && rest.trim_end().ends_with(')');
        let variable = rest.starts_with('%')
            || rest.starts_with("\"%")
            || rest.starts_with("[%")
            || rest.starts_with('!')
            || rest.starts_with("\"!")
            || rest.starts_with("(%");
        let keyword = ["exist ", "defined ", "errorlevel ", "cmdextversion "].iter().any(|word| rest.starts_with(word));
        let shouted = cut::from(view.text, at).starts_with("IF");
        let compared = comparison(rest);
        let begins =
            cut::until(view.lower, at).trim_end_matches(|c: char| c.is_whitespace() || "&|(@;".contains(c)).is_empty();
        if keyword {
            let rule = if tail(2) || parenthesised || insensitive { Rule::RceWindows } else { Rule::RceWindowsIf };
            let number = rest
                .strip_prefix("errorlevel")
                .is_none_or(|level| level.trim_start().starts_with(|c: char| c.is_ascii_digit()));
            if number && (rule == Rule::RceWindows || shouted) {
                hits.add(rule, found);
            }
        } else if compared {
            let telling = insensitive || variable || tail(1) || shouted && begins;
            let code = rest.trim_end().ends_with([':', '{', ';']) && !variable;
            if telling && !code {
                hits.add(Rule::RceWindows, found);
            } else if begins && !code {
                hits.add(Rule::RceWindowsIf, found);
            }
        }
    }
}

/// Whether the text begins with a comparison as cmd.exe writes it.
fn comparison(rest: &str) -> bool {
    let head = excerpt(rest, 0, 80);
    let words = [" equ ", " neq ", " lss ", " leq ", " gtr ", " geq "].iter().filter_map(|word| head.find(word)).min();
    let sign = head.find("==").filter(|at| !cut::until(head, *at).ends_with(['!', '='].as_slice()));
    let at = match (words, sign) {
        (Some(word), Some(sign)) => word.min(sign),
        (word, sign) => match word.or(sign) {
            Some(at) => at,
            None => return false,
        },
    };
    let left = cut::until(head, at).trim();
    let quoted = left.starts_with(['"', '[', '(', '\'', '%', '!']);
    !left.is_empty() && (quoted || !left.contains(char::is_whitespace)) && left.len() < 48
}

fn powershell(view: &View<'_>, hits: &mut Hits) {
    for (at, before, after) in view.occurrences(view.lower, "-") {
        if !before.is_some_and(|byte| byte.is_ascii_alphabetic())
            || !after.is_some_and(|byte| byte.is_ascii_alphabetic())
        {
            continue;
        }
        let verb_start = cut::until(view.lower, at)
            .bytes()
            .rposition(|byte| !byte.is_ascii_alphabetic())
            .map_or(0, |start| start + 1);
        let noun_end = cut::from(view.lower, at + 1)
            .bytes()
            .position(|byte| !byte.is_ascii_alphabetic())
            .map_or(view.lower.len(), |end| at + 1 + end);
        let (verb, noun) = (cut::between(view.lower, verb_start, at), cut::between(view.lower, at + 1, noun_end));
        if !view.work.spend(CMDLET) {
            return;
        }
        let hyphened = cut::from(view.lower, noun_end).starts_with('-')
            || cut::until(view.lower, verb_start).ends_with(['-', '/', '.', '_']);
        let cased = cut::from(view.text, verb_start).starts_with(|c: char| c.is_ascii_uppercase())
            && cut::from(view.text, at + 1).starts_with(|c: char| c.is_ascii_uppercase());
        if noun_end - verb_start < 64
            && !hyphened
            && cased
            && listed(VERBS, verb)
            && prefixes(NOUNS, noun).next().is_some()
            && view.place != Place::ArgName
        {
            hits.add(Rule::RcePowershell, excerpt(view.text, verb_start, 60));
        }
    }

    for (at, word) in view.find_any(POWERSHELL, view.lower) {
        let short = word.len() == 3;
        let lead = cut::until(view.lower, at).trim_end();
        let separated = lead.is_empty() || lead.ends_with(['|', ';', '&', '(']);
        let rest = cut::from(view.lower, at + word.len());
        let argument = rest.trim_start().starts_with(['(', '"', '\'', '$'])
            || rest.trim_start().starts_with("http")
            || rest.is_empty() && lead.ends_with('|');
        if !short || separated && argument {
            hits.add(Rule::RcePowershell, excerpt(view.text, at, 60));
        }
    }
}

#[cfg(test)]
#[test]
fn lists_are_sorted() {
    for list in [PROGRAMS, WORDS, VERBS, NOUNS, POWERSHELL, STATEMENTS] {
        assert!(list.is_sorted());
    }
}
