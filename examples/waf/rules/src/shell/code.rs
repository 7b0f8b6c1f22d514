//! Code for interpreters other than a shell: PHP, Java, Python, Node, Ruby, template engines and loggers.

use crate::catalogue::Rule;
use crate::cut;
use crate::parts::Place;
use crate::view::{Hits, View, excerpt, is_word};
use crate::words::{List, words};

/// Openings that are code wherever they stand.
static OPENINGS: &List = &List::of(words!(
    "!!javax.script !!python/object !ruby/object #_memberaccess #context[ $_cookie[ $_get[ $_post[ $_request[
     $_server[ $globals[ <!--#echo <!--#exec <!--#include <%= <%@ <?= <?php <cfexecute @java. [php] _$$nd_func$$_
     __import__( __schema{types allow_url_include auto_prepend_file child_process class.module. classloader.
     freemarker.template global.process io.popen( java.lang. javax.script kernel.exec kernel.system ognl. os.popen(
     os.system( phpinfo( pickle.loads process.binding( process.mainmodule processbuilder( rO0AB runtime.getruntime
     scripting.filesystemobject subprocess. system.diagnostics.process unserialize( wscript.shell xwork2. yaml.load("
));

/// Expressions that a logger or a template engine looks up.
static LOOKUPS: &List = &List::of(words!(
    "#{t( ${::- ${ctx: ${date: ${dns: ${env: ${java: ${jndi: ${lower: ${script: ${sys: ${t( ${upper: ${url: ${{ *{t("
));

/// Functions that run a command or code, when called with something.
static RUNS: &List = &List::of(words!(
    "assert base64_decode call_user_func create_function curl_exec exec execfile execsync file_get_contents
     file_put_contents fsockopen gzinflate ob_start passthru pcntl_exec popen preg_replace proc_open shell_exec
     spawnsync str_rot13 system"
));

pub(super) fn inspect(view: &View<'_>, hits: &mut Hits) {
    for (at, _) in view.find_any(OPENINGS, view.lower) {
        hits.add(Rule::RceCode, excerpt(view.text, at, 60));
    }
    // A serialised object of Java, in base64.
    if view.text.starts_with("rO0AB") {
        hits.add(Rule::RceCode, excerpt(view.text, 0, 60));
    }

    for (at, name) in view.find_any(RUNS, view.lower) {
        let argument = cut::from(view.lower, at + name.len()).trim_start().strip_prefix('(').map(str::trim_start);
        let given = argument.is_some_and(|argument| {
            argument.starts_with(['"', '\'', '$', '`', '\\'])
                || argument.starts_with("base64")
                || argument.starts_with("chr(")
        });
        if given && !cut::until(view.lower, at).ends_with('.') {
            hits.add(Rule::RceCode, excerpt(view.text, at, 60));
        }
    }
    serialised(view, hits);
    templates(view, hits);
}

/// PHP's serialised objects, `O:8:"stdClass":…`.
fn serialised(view: &View<'_>, hits: &mut Hits) {
    for (at, before, _) in view.occurrences(view.lower, "o:") {
        let rest = cut::from(view.lower, at + 2).trim_start_matches('+');
        let digits = rest.bytes().take(6).take_while(u8::is_ascii_digit).count();
        if digits > 0 && cut::from(rest, digits).starts_with(":\"") && !before.is_some_and(is_word) {
            hits.add(Rule::RceCode, excerpt(view.text, at, 60));
        }
    }
}

/// Expressions that a logger or a template engine would evaluate.
fn templates(view: &View<'_>, hits: &mut Hits) {
    for (at, _) in view.find_any(LOOKUPS, view.lower) {
        hits.add(Rule::RceTemplate, excerpt(view.text, at, 60));
    }
    if !view.lower.contains(['{', '%', '(']) {
        return;
    }
    for (open, close) in [("{{", "}}"), ("${", "}"), ("#{", "}"), ("%{", "}"), ("<%", "%>"), ("@(", ")"), ("{%", "%}")]
    {
        for (at, ..) in view.occurrences(view.lower, open) {
            let rest = view.look(view.lower, at + open.len(), 200, 3);
            let Some((inside, _)) = rest.split_once(close) else { continue };
            let inside = inside.trim();
            let sum = inside.split(['*', '+', '-']).count() > 1
                && inside.bytes().all(|byte| byte.is_ascii_digit() || b"*+-' ".contains(&byte))
                && inside.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
            let reach = [
                "__class__",
                "__globals__",
                "__mro__",
                "__subclasses__",
                "self._",
                "config.items",
                "request.application",
                "lipsum.",
                "cycler.",
                ".getclass",
                "@java",
                "_self.env",
                "constructor",
                "system(",
                "exec(",
            ];
            if !view.work.spend(inside.len() * reach.len() * 2) {
                return;
            }
            let page = open == "{{" || view.place != Place::Body;
            if page && sum || reach.iter().any(|word| inside.contains(word)) {
                hits.add(Rule::RceTemplate, excerpt(view.text, at, 60));
            }
        }
    }
}

#[cfg(test)]
#[test]
fn lists_are_sorted() {
    for list in [OPENINGS, LOOKUPS, RUNS] {
        assert!(list.is_sorted());
    }
}
