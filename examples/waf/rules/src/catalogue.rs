//! The families and the built-in rules: what each is called, and how much it weighs.

use serde::{Deserialize, Serialize};

/// A family of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// SQL injection, and operators of document databases.
    Sqli,
    /// Cross-site scripting.
    Xss,
    /// Path traversal and files that nobody should ask for.
    Lfi,
    /// Command and code injection.
    Rce,
    /// Bad bots.
    Scanner,
    /// More than the rules are willing to look at, and what they cannot read.
    Limits,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 6] = [Family::Sqli, Family::Xss, Family::Lfi, Family::Rce, Family::Scanner, Family::Limits];

    /// The name as it is written in the rule file.
    pub fn name(self) -> &'static str {
        match self {
            Family::Sqli => "sqli",
            Family::Xss => "xss",
            Family::Lfi => "lfi",
            Family::Rce => "rce",
            Family::Scanner => "scanner",
            Family::Limits => "limits",
        }
    }
}

/// What the catalogue says of a built-in rule.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name as it is written in the rule file and in reasons.
    pub id: &'static str,
    /// The family in which its score counts.
    pub family: Family,
    /// What it adds to its family's score for the part in which it matched.
    pub score: u32,
    /// What it looks for.
    pub about: &'static str,
}

macro_rules! catalogue {
    ($($rule:ident $id:literal $family:ident $score:literal $about:literal;)*) => {
        /// A built-in rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $(#[doc = $about] $rule),* }

        /// Every built-in rule, in the order of [`Rule`].
        pub const CATALOGUE: &[Entry] = &[$(Entry { id: $id, family: Family::$family, score: $score, about: $about }),*];

        const RULES: &[Rule] = &[$(Rule::$rule),*];
    };
}

catalogue! {
    SqlTautology "sqli-tautology" Sqli 5 "A condition that is always true or false, or one appended behind a closed quote.";
    SqlUnion "sqli-union" Sqli 5 "UNION SELECT.";
    SqlSelect "sqli-select" Sqli 5 "SELECT with a list that only SQL has.";
    SqlStatement "sqli-statement" Sqli 5 "A statement that changes data, runs a procedure or writes a file.";
    SqlStacked "sqli-stacked" Sqli 5 "A second statement behind a semicolon.";
    SqlBreakout "sqli-breakout" Sqli 5 "A quote that is closed, with the rest of the statement cut off.";
    SqlClause "sqli-clause" Sqli 5 "ORDER BY, GROUP BY, HAVING, LIKE or LIMIT where a value should be.";
    SqlConcat "sqli-concat" Sqli 5 "A quote that is closed, and text appended with an operator.";
    SqlFunction "sqli-function" Sqli 5 "A call of a function that only attacks send: delays, files, errors as a channel.";
    SqlDangling "sqli-dangling-call" Sqli 5 "A value that is nothing but the beginning of a call of an SQL function.";
    SqlNested "sqli-nested-call" Sqli 3 "SQL functions called inside each other.";
    SqlCall "sqli-call" Sqli 2 "A call of an SQL function that programs and spreadsheets have too.";
    SqlCast "sqli-cast" Sqli 5 "A PostgreSQL cast.";
    SqlJson "sqli-json-operator" Sqli 5 "A JSON operator between literals.";
    SqlExponent "sqli-exponent" Sqli 5 "A number with an empty exponent in front of a call or a name.";
    SqlSchema "sqli-schema" Sqli 5 "The database's own tables.";
    SqlComment "sqli-comment" Sqli 5 "A comment that a database runs, or one that hides a keyword.";
    SqlEdge "sqli-integer-edge" Sqli 3 "A number one step outside of what an integer holds.";
    SqlNames "sqli-known-database" Sqli 3 "The name of a well-known system or sample database, alone.";
    NoSql "sqli-document-operator" Sqli 5 "An operator of a document database as the name of a parameter.";

    XssScript "xss-script-tag" Xss 5 "A script element.";
    XssTag "xss-active-tag" Xss 5 "An element that loads or runs something.";
    XssHandler "xss-event-handler" Xss 5 "An attribute that handles an event.";
    XssUri "xss-script-uri" Xss 5 "A URI that runs a script.";
    XssStyle "xss-style" Xss 5 "A style that runs a script or loads another.";
    XssDom "xss-dom-access" Xss 5 "A script that reaches into the page.";
    XssCall "xss-script-call" Xss 5 "A script that runs text or shows a dialog.";
    XssObfuscated "xss-obfuscated-script" Xss 5 "A script written so that nobody sees it.";
    XssEntity "xss-markup-declaration" Xss 5 "A declaration that makes an XML parser fetch something.";
    XssCharset "xss-charset" Xss 5 "Markup in a character set that only old browsers guess.";

    LfiTraversal "lfi-traversal" Lfi 5 "A path that climbs out of its folder.";
    LfiStep "lfi-step-up" Lfi 2 "One step up, in the middle of text.";
    LfiSystem "lfi-system-file" Lfi 5 "A file or folder of the operating system.";
    LfiMention "lfi-mention" Lfi 2 "Such a file, in the middle of prose.";
    LfiSecret "lfi-secret-file" Lfi 5 "A file that holds secrets or configuration.";
    LfiHidden "lfi-hidden-file" Lfi 5 "A hidden file or folder in the path that was asked for.";
    LfiLeftover "lfi-leftover-file" Lfi 5 "A log, backup, dump or configuration in the path that was asked for.";
    LfiWrapper "lfi-wrapper" Lfi 5 "A URI that makes the server read a file.";

    RceCommand "rce-command" Rce 5 "A command behind a separator or inside a substitution.";
    RceDirect "rce-direct-command" Rce 5 "A value that is a command line.";
    RceBare "rce-bare-command" Rce 3 "A value that may be a command line.";
    RcePath "rce-program-path" Rce 5 "A program by its full path.";
    RceExpansion "rce-expansion" Rce 5 "A shell's substitution, arithmetic or brace expansion.";
    RceVariable "rce-variable" Rce 3 "A shell's variable or directory expansion.";
    RceGlob "rce-glob" Rce 5 "A well-known path written with wildcards.";
    RceShellshock "rce-shellshock" Rce 5 "A function definition as bash once imported it.";
    RceAlias "rce-alias" Rce 5 "An alias definition.";
    RceWindows "rce-windows" Rce 5 "A loop or condition of cmd.exe.";
    RceWindowsIf "rce-windows-if" Rce 3 "What may be a condition of cmd.exe.";
    RcePowershell "rce-powershell" Rce 5 "PowerShell.";
    RceTemplate "rce-template" Rce 5 "An expression for a template engine or a logger to evaluate.";
    RceCode "rce-code" Rce 5 "Code for an interpreter on the server, or objects for it to restore.";
    RceUpload "rce-upload" Rce 5 "An uploaded file that a server would run or obey.";

    BotTool "scanner-tool" Scanner 5 "A tool that looks for weaknesses, by its own name.";
    BotProbe "scanner-probe" Scanner 5 "A header or path that only such a tool sends.";

    TooMuch "limits-exceeded" Limits 5 "More parameters or bytes than the limits allow to look at.";
    TooDear "limits-work" Limits 5 "More work than the limits allow to do.";
    Unread "limits-unread" Limits 5 "A part that cannot be read, or that a server may read differently.";
}

impl Rule {
    /// What the catalogue says of it.
    #[allow(clippy::indexing_slicing, reason = "the list has an entry for every rule")]
    pub fn entry(self) -> &'static Entry {
        &CATALOGUE[self as usize]
    }

    /// The rule with this id.
    pub fn by_id(id: &str) -> Option<Rule> {
        RULES.iter().copied().find(|rule| rule.entry().id == id)
    }
}
