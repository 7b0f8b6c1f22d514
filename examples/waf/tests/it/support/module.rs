//! Modules that do what a test asks of them: small ones in WebAssembly's text format, of the interface that rules have.
//!
//! A request says what is to happen: `do=b` in it is blocked, `do=c` challenged, `do=l` logged; `do=t` traps, `do=x`
//! never ends, `do=n` gets a number that is no verdict, `do=o` an answer that is not in the memory, `do=f` an error.
//! `do=m` takes memory until there is none, and traps, as allocators do; `do=g` takes as much, and goes on without;
//! `do=e` does the first with a table, `do=r` calls itself for ever. `do=k` is blocked by a rule whose name begins with
//! the six bytes behind it. Everything else is allowed. A rule file with `REFUSE` in it is refused, and with `BLOCK` in
//! it every request is blocked.

use hotslot::host::Interface;
use waf_interface::Waf;

/// A module to be made.
#[derive(Clone)]
pub struct Module {
    version: String,
    always: Option<char>,
    without: Option<&'static str>,
    hangs_in: Option<&'static str>,
    salt: u32,
}

impl Module {
    pub fn new(version: &str) -> Module {
        Module { version: version.to_owned(), always: None, without: None, hangs_in: None, salt: 0 }
    }

    /// Treats every request as if this letter had been asked for.
    pub fn always(mut self, letter: char) -> Module {
        self.always = Some(letter);
        self
    }

    /// Does not export this.
    pub fn without(mut self, export: &'static str) -> Module {
        self.without = Some(export);
        self
    }

    /// Never comes back from this function, or from its `start`.
    pub fn hangs_in(mut self, function: &'static str) -> Module {
        self.hangs_in = Some(function);
        self
    }

    /// Other bytes, and nothing else that is different.
    pub fn salted(mut self, salt: u32) -> Module {
        self.salt = salt;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let letter = match self.always {
            Some(letter) => format!("(i32.const {})", letter as u32),
            None => "(call $asked)".to_owned(),
        };
        let mut text = TEXT
            .replace("{letter}", &letter)
            .replace("{version}", &self.version)
            .replace("{interface}", <dyn Waf as Interface>::ID)
            .replace("{contract}", &<dyn Waf as Interface>::CONTRACT.escape_default().to_string())
            .replace("{salt}", &self.salt.to_string())
            .replace("{start}", if self.hangs_in == Some("start") { "(start $ever)" } else { "" });
        for name in EXPORTS {
            let export = if self.without == Some(name) { String::new() } else { format!("(export \"{name}\")") };
            let hang = if self.hangs_in == Some(name) { "(call $ever)" } else { "" };
            text = text.replace(&format!("{{{name}}}"), &export).replace(&format!("{{{name} hangs}}"), hang);
        }
        wat::parse_str(text).expect("the text of a module")
    }
}

/// What a module of an interface has to export.
pub const EXPORTS: [&str; 5] = ["hotslot_create", "hotslot_room", "hotslot_invoke", "hotslot_give", "hotslot_run"];

/// A call comes as a frame: the bytes of its only argument are at the address that is 32 bytes into it, so many as the
/// number at 40 says. The answer goes, as address and length, to 16 and 20: a verdict and its reason in the postcard
/// format, which for short texts is lengths and bytes.
const TEXT: &str = r#"
(module
  (@custom "version" "{version}")
  (@custom "hotslot.manifest" "name=universal-waf\ninterface={interface}")
  (@custom "hotslot.contract" "{contract}")
  (@custom "salt" "{salt}")
  (memory (export "memory") 18)
  (global $block (mut i32) (i32.const 0))
  ;; The request or the rule file.
  (global $input (mut i32) (i32.const 0))
  (global $length (mut i32) (i32.const 0))
  (data (i32.const 16) "do=")
  (data (i32.const 32) "REFUSE")
  (data (i32.const 48) "BLOCK")
  ;; Verdict, Some(reason): the texts of rule, part and matched, and the score.
  (data (i32.const 256) "\00\01\09test-rule\04path\03do=\05")
  (data (i32.const 512) "the file says REFUSE")
  (data (i32.const 544) "the request says so")

  ;; Whether the bytes at two addresses are the same.
  (func $same (param $a i32) (param $b i32) (param $length i32) (result i32)
    (loop $next
      (if (i32.eqz (local.get $length)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load8_u (local.get $a)) (i32.load8_u (local.get $b))) (then (return (i32.const 0))))
      (local.set $a (i32.add (local.get $a) (i32.const 1)))
      (local.set $b (i32.add (local.get $b) (i32.const 1)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; The address behind a word in the input, or 0.
  (func $behind (param $word i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (global.get $input))
    (local.set $end (i32.sub (i32.add (global.get $input) (global.get $length)) (local.get $size)))
    (loop $next
      (if (i32.gt_s (local.get $at) (local.get $end)) (then (return (i32.const 0))))
      (if (call $same (local.get $at) (local.get $word) (local.get $size))
        (then (return (i32.add (local.get $at) (local.get $size)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))

  (func $asked (result i32)
    (local $at i32)
    (local.set $at (call $behind (i32.const 16) (i32.const 3)))
    (if (result i32) (local.get $at) (then (i32.load8_u (local.get $at))) (else (i32.const 0))))

  (func $ever (loop $ever (br $ever)))
  {start}

  ;; Takes a MiB of memory, so that it is really there; 0 if there is none to be had.
  (func $take (result i32)
    (local $was i32)
    (local.set $was (memory.grow (i32.const 16)))
    (if (i32.eq (local.get $was) (i32.const -1)) (then (return (i32.const 0))))
    (memory.fill (i32.shl (local.get $was) (i32.const 16)) (i32.const 1) (i32.const 1048576))
    (i32.const 1))

  (table $table 1 funcref)
  (func $recurse (call $recurse))

  (func {hotslot_room} (param i32) (result i32) {hotslot_room hangs} (i32.const 65536))
  (func {hotslot_give} (param i32) (result i32) {hotslot_give hangs} (i32.const 0))
  (func {hotslot_run} (result i64) {hotslot_run hangs} (i64.const 0))

  (func {hotslot_create} (param $length i32) (result i64)
    {hotslot_create hangs}
    (global.set $input (i32.const 65536))
    (global.set $length (local.get $length))
    (global.set $block (i32.ne (i32.const 0) (call $behind (i32.const 48) (i32.const 5))))
    (if (result i64) (call $behind (i32.const 32) (i32.const 6))
      ;; Address and length of the text.
      (then (i64.const 0x200_0000_0014)) (else (i64.const 0))))

  (func {hotslot_invoke} (param $method i32) (param $frame i32) (result i32)
    (local $letter i32)
    {hotslot_invoke hangs}
    (global.set $input (i32.load offset=32 (local.get $frame)))
    (global.set $length (i32.load offset=40 (local.get $frame)))
    (local.set $letter {letter})
    (if (i32.eq (local.get $letter) (i32.const 102)) (then
      (i32.store offset=16 (local.get $frame) (i32.const 544))
      (i32.store offset=20 (local.get $frame) (i32.const 19))
      (return (i32.const 1))))
    (i32.store offset=16 (local.get $frame) (i32.const 256))
    (i32.store offset=20 (local.get $frame) (i32.const 22))
    (if (i32.eq (local.get $letter) (i32.const 111)) (then
      (i32.store offset=16 (local.get $frame) (i32.const -16))))
    (i32.store8 (i32.const 256) (call $verdict (local.get $letter)))
    (i32.const 0))

  (func $verdict (param $letter i32) (result i32)
    (if (global.get $block) (then (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 98)) (then (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 99)) (then (return (i32.const 2))))
    (if (i32.eq (local.get $letter) (i32.const 108)) (then (return (i32.const 3))))
    (if (i32.eq (local.get $letter) (i32.const 110)) (then (return (i32.const 7))))
    (if (i32.eq (local.get $letter) (i32.const 116)) (then (unreachable)))
    (if (i32.eq (local.get $letter) (i32.const 120)) (then (call $ever)))
    (if (i32.eq (local.get $letter) (i32.const 109)) (then (loop $more (br_if $more (call $take))) (unreachable)))
    (if (i32.eq (local.get $letter) (i32.const 103)) (then (loop $more (br_if $more (call $take)))))
    (if (i32.eq (local.get $letter) (i32.const 101)) (then
      (loop $more (br_if $more (i32.ne (i32.const -1) (table.grow $table (ref.null func) (i32.const 1000)))))
      (unreachable)))
    (if (i32.eq (local.get $letter) (i32.const 114)) (then (call $recurse)))
    (if (i32.eq (local.get $letter) (i32.const 107)) (then
      (memory.copy (i32.const 259)
        (i32.add (i32.const 1) (call $behind (i32.const 16) (i32.const 3)))
        (i32.const 6))
      (return (i32.const 1))))
    (i32.const 0)))
"#;
