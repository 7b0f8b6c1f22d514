//! What is trusted and what is not: signatures, roots, counters.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use hotslot_trust::sign::KeyPair;
use hotslot_trust::{
    Digest, Ledger, LedgerError, Manifest, NotTrusted, PublicKey, Purpose, Recovery, Role, Root, RootError, Signed,
    Subject, Verified,
};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
const ARTIFACT: &[u8] = b"the bytes of a plugin";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn root_of(keys: &[&KeyPair]) -> Root {
    Root::first(&keys.iter().map(|key| key.public()).collect::<Vec<_>>(), now() + 365 * DAY)
}

fn sign(manifest: &Manifest, keys: &[&KeyPair]) -> Signed {
    let manifest = manifest.to_bytes();
    Signed { signatures: keys.iter().map(|key| key.sign(&manifest).unwrap()).collect(), manifest }
}

fn manifest(key: &KeyPair) -> Manifest {
    Manifest::new("rules", ARTIFACT, key.public().id())
}

fn verified(root: &Root, key: &KeyPair, counter: u64, min_counter: u64) -> Verified {
    let signed = sign(&manifest(key).counter(counter).min_counter(min_counter), &[key]);
    root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap()
}

const NEW: Purpose = Purpose::Reload { serving: None };

#[test]
fn what_was_signed_is_trusted_and_nothing_else() {
    let (owner, other) = (key(), key());
    let root = root_of(&[&owner]);
    let signed = sign(&manifest(&owner).counter(3).version("1.2.0"), &[&owner]);
    let verified = root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap();
    assert_eq!((verified.digest(), verified.counter(), verified.slot()), (Digest::of(ARTIFACT), 3, "rules"));
    assert_eq!(
        (verified.version(), verified.signers().collect::<Vec<_>>()),
        (Some("1.2.0"), vec![&owner.public().id()])
    );

    let foreign = sign(&manifest(&other), &[&other]);
    let error = root.verify(&foreign, Subject::Plugin, "rules", ARTIFACT, now()).unwrap_err();
    assert_eq!(error, NotTrusted::TooFewSignatures { role: Role::Release, signed: 0, threshold: 1, root: 1 });
    let unsigned = Signed { signatures: Vec::new(), ..signed.clone() };
    assert!(matches!(
        root.verify(&unsigned, Subject::Plugin, "rules", ARTIFACT, now()),
        Err(NotTrusted::TooFewSignatures { .. })
    ));
    let error = root.verify(&signed, Subject::Plugin, "rules", b"other bytes", now()).unwrap_err();
    assert!(error.to_string().starts_with("the plugin has the digest "), "{error}");
}

/// Fault 26: a valid signature for another slot.
#[test]
fn a_signature_for_another_slot_or_interface_is_refused() {
    let owner = key();
    let root = root_of(&[&owner]);
    let signed = sign(&manifest(&owner).interface("waf/2"), &[&owner]);
    let error = root.verify(&signed, Subject::Plugin, "prices", ARTIFACT, now()).unwrap_err();
    assert_eq!(error.to_string(), r#"signed for the slot "rules", but this is "prices""#);
    let verified = root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap();
    assert!(verified.clone().for_interface("waf/2").is_ok());
    assert!(matches!(verified.for_interface("waf/3"), Err(NotTrusted::WrongInterface { .. })));
    let silent = root.verify(&sign(&manifest(&owner), &[&owner]), Subject::Plugin, "rules", ARTIFACT, now()).unwrap();
    assert!(matches!(silent.for_interface("waf/2"), Err(NotTrusted::WrongInterface { signed: None, .. })));
}

#[test]
fn rules_and_configuration_are_tied_to_the_plugin_if_it_says_so() {
    let owner = key();
    let root = root_of(&[&owner]);
    let signed = sign(&manifest(&owner).rules(b"rules").config(b"config"), &[&owner]);
    let verified = root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap();
    assert!(verified.clone().with(Some(b"rules"), Some(b"config")).is_ok());
    for (rules, config, part) in [
        (Some(&b"others"[..]), Some(&b"config"[..]), "rules"),
        (None, Some(b"config"), "rules"),
        (Some(b"rules"), Some(b"others"), "configuration"),
        (Some(b"rules"), None, "configuration"),
    ] {
        let error = verified.clone().with(rules, config).unwrap_err();
        assert!(matches!(error, NotTrusted::WrongDigest { part: named, .. } if named == part), "{error}");
    }
    let free = root.verify(&sign(&manifest(&owner), &[&owner]), Subject::Plugin, "rules", ARTIFACT, now()).unwrap();
    assert!(free.with(Some(b"any"), None).is_ok());
}

/// Fault 25: an expired signature; and clocks that are set.
#[test]
fn a_signature_holds_within_its_time() {
    let owner = key();
    let root = root_of(&[&owner]);
    let signed = sign(&manifest(&owner).not_before(now()).expires(now() + DAY), &[&owner]);
    let at = |time| root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, time);
    assert!(matches!(at(now() - Duration::from_secs(1)), Err(NotTrusted::TooEarly { .. })));
    assert!(at(now()).is_ok());
    assert!(at(now() + DAY - Duration::from_secs(1)).is_ok());
    let error = at(now() + DAY).unwrap_err();
    assert_eq!(error.to_string(), "the signature expired at 2024-10-05T00:00:00Z: sign anew");
    let forever = sign(&manifest(&owner), &[&owner]);
    assert!(root.verify(&forever, Subject::Plugin, "rules", ARTIFACT, now() + 364 * DAY).is_ok());
    let error = root.verify(&forever, Subject::Plugin, "rules", ARTIFACT, now() + 365 * DAY).unwrap_err();
    assert!(matches!(error, NotTrusted::RootExpired { version: 1, .. }), "{error}");
}

#[test]
fn what_has_expired_is_still_recalled_and_nothing_is_that_was_never_good() {
    let (owner, other) = (key(), key());
    let root = root_of(&[&owner]);
    let signed = sign(&manifest(&owner).counter(9).min_counter(4).expires(now() - DAY).rules(b"rules"), &[&owner]);
    assert!(root.verify_manifest(&signed, Subject::Plugin, "rules", now()).is_err());
    let recalled = root.recall(&signed, Subject::Plugin, "rules").unwrap();
    assert_eq!(recalled.counter(), 9);
    assert!(recalled.clone().of_artifact(ARTIFACT).is_ok() && recalled.clone().of_artifact(b"another").is_err());
    assert!(recalled.clone().with_rules(Some(b"rules")).is_ok() && recalled.clone().with_rules(None).is_err());
    assert!(recalled.clone().with_config(Some(b"any")).is_ok(), "it was signed without one");
    assert!(root.recall(&signed, Subject::Plugin, "prices").is_err());
    assert!(root.recall(&sign(&manifest(&other), &[&other]), Subject::Plugin, "rules").is_err());
    // So a ledger that is lost counts also what has expired since.
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path().join("ledger.json"), &root, [&recalled]).unwrap();
    let older = verified(&root, &owner, 8, 0);
    assert!(matches!(ledger.check(&older, NEW), Err(LedgerError::Replayed { highest: 9, .. })));
}

#[test]
fn a_threshold_counts_different_keys() {
    let keys = [key(), key(), key()];
    let root = root_of(&[&keys[0], &keys[1], &keys[2]]).threshold(Role::Release, 2);
    let by = |signers: &[&KeyPair]| {
        root.verify(&sign(&manifest(&keys[0]), signers), Subject::Plugin, "rules", ARTIFACT, now())
    };
    assert!(by(&[&keys[0], &keys[1]]).is_ok());
    assert!(by(&[&keys[0], &keys[1], &keys[2]]).is_ok());
    let error = by(&[&keys[0], &keys[0]]).unwrap_err();
    assert_eq!(error, NotTrusted::TooFewSignatures { role: Role::Release, signed: 1, threshold: 2, root: 1 });
    assert_eq!(by(&[&keys[1], &keys[2]]).unwrap_err(), NotTrusted::ForeignCounter(keys[0].public().id()));
    // A root that names a key twice does not make two of it.
    let twice = root_of(&[&keys[0], &keys[0], &keys[1]]).threshold(Role::Release, 2);
    let signed = sign(&manifest(&keys[0]), &[&keys[0], &keys[0]]);
    assert!(matches!(
        twice.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()),
        Err(NotTrusted::TooFewSignatures { signed: 1, .. })
    ));
}

#[test]
fn a_key_for_rules_signs_no_plugin() {
    let (release, online) = (key(), key());
    let root = root_of(&[&release]).key(online.public(), [Role::Rules]);
    let plugin = sign(&manifest(&online), &[&online]);
    assert!(matches!(
        root.verify(&plugin, Subject::Plugin, "rules", ARTIFACT, now()),
        Err(NotTrusted::TooFewSignatures { .. })
    ));
    let rules = sign(&manifest(&online).subject(Subject::Rules), &[&online]);
    assert!(root.verify(&rules, Subject::Rules, "rules", ARTIFACT, now()).is_ok());
    // What it says that it signs is not what decides.
    let error = root.verify(&rules, Subject::Plugin, "rules", ARTIFACT, now()).unwrap_err();
    assert_eq!(error, NotTrusted::WrongSubject { signed: Subject::Rules, expected: Subject::Plugin });
    let error = root.verify(&rules, Subject::Rules, "rules", b"others", now()).unwrap_err();
    assert!(error.to_string().starts_with("the rule file has"), "{error}");
}

#[test]
fn documents_that_are_none_are_refused_by_what_they_are() {
    let owner = key();
    let root = root_of(&[&owner]);
    let refuse = |document: &[u8]| {
        let signed = Signed { signatures: vec![owner.sign(document).unwrap()], manifest: document.to_vec() };
        root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap_err()
    };
    assert!(matches!(refuse(b""), NotTrusted::Malformed(_)));
    assert!(matches!(refuse(b"{\"format\": 1}"), NotTrusted::Malformed(_)));
    assert_eq!(refuse(b"{\"format\": 2, \"anything\": 0}"), NotTrusted::Format(2));
    assert!(matches!(refuse(&vec![b' '; 100_000]), NotTrusted::Malformed(why) if why.contains("65536 are allowed")));
    let unknown = String::from_utf8(manifest(&owner).to_bytes()).unwrap().replacen('{', "{\"mode\": \"lenient\",", 1);
    assert!(matches!(refuse(unknown.as_bytes()), NotTrusted::Malformed(why) if why.contains("mode")));
    let itself = manifest(&owner).counter(3).min_counter(4).to_bytes();
    assert_eq!(refuse(&itself), NotTrusted::RevokesItself { counter: 3, min_counter: 4 });
    assert!("RWnonsense".parse::<PublicKey>().is_err() && "".parse::<PublicKey>().is_err());
    assert!(matches!(Root::trusted(b"{\"format\": 9}"), Err(RootError::Format(9))));
    assert!(matches!(Root::trusted(b"[]"), Err(RootError::Malformed(_))));
    let nobody = root.successor(now() + DAY).without(&owner.public().id());
    assert!(matches!(Root::trusted(&nobody.to_bytes()), Err(RootError::TooFewKeys { role: Role::Root, .. })));
    let many = root_of(&[&owner]).threshold(Role::Release, 2);
    assert!(matches!(Root::trusted(&many.to_bytes()), Err(RootError::TooFewKeys { role: Role::Release, .. })));
    let none = root_of(&[&owner]).threshold(Role::Rules, 0);
    assert!(matches!(Root::trusted(&none.to_bytes()), Err(RootError::TooFewKeys { role: Role::Rules, .. })));
}

/// A signature of the same key over something else is not one over this.
#[test]
fn a_manifest_is_no_root_and_a_root_no_manifest() {
    let owner = key();
    let root = root_of(&[&owner]);
    let next = root.successor(now() + DAY).to_bytes();
    let signed = Signed { signatures: vec![owner.sign(&next).unwrap()], manifest: next };
    assert!(matches!(root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()), Err(NotTrusted::Malformed(_))));
    let manifest = manifest(&owner).to_bytes();
    let signature = owner.sign(&manifest).unwrap();
    assert!(matches!(root.follow(&manifest, &[signature]), Err(RootError::Malformed(_))));
}

#[test]
fn a_root_is_followed_by_the_keys_of_both() {
    let (old, new) = (key(), key());
    let first = root_of(&[&old]);
    let second = first.successor(now() + 365 * DAY).without(&old.public().id());
    let second = second.key(new.public(), [Role::Root, Role::Release]);
    let bytes = second.to_bytes();
    let by =
        |keys: &[&KeyPair]| first.follow(&bytes, &keys.iter().map(|key| key.sign(&bytes).unwrap()).collect::<Vec<_>>());
    assert_eq!(by(&[&old, &new]).unwrap(), second);
    assert!(matches!(by(&[&old]), Err(RootError::TooFewSignatures { version: 2, signed: 0, threshold: 1 })));
    assert!(matches!(by(&[&new]), Err(RootError::TooFewSignatures { version: 1, .. })));

    let third = second.successor(now() + DAY).to_bytes();
    let signatures = [old.sign(&third).unwrap(), new.sign(&third).unwrap()];
    assert!(matches!(first.follow(&third, &signatures), Err(RootError::NotNext { trusted: 1, found: 3 })), "no gaps");
    let third = second.follow(&third, &signatures).unwrap();
    assert!(third.check_expiry(now()).is_ok());
    assert!(matches!(third.check_expiry(now() + DAY), Err(RootError::Expired { version: 3, .. })));
    let again = [old.sign(&bytes).unwrap(), new.sign(&bytes).unwrap()];
    assert!(matches!(third.follow(&bytes, &again), Err(RootError::NotNext { .. })), "no way back");
}

/// Fault 27: a key that was removed.
#[test]
fn what_a_removed_key_has_signed_is_refused() {
    let (stolen, safe) = (key(), key());
    let first = root_of(&[&stolen, &safe]);
    let signed = sign(&manifest(&stolen), &[&stolen]);
    assert!(first.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).is_ok());
    let second = first.successor(now() + DAY).without(&stolen.public().id());
    assert!(matches!(
        second.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()),
        Err(NotTrusted::TooFewSignatures { .. })
    ));
}

/// Fault 27: every bit of every document.
#[test]
fn no_bit_of_anything_can_be_flipped() {
    let owner = key();
    let root = root_of(&[&owner]);
    let signed = sign(&manifest(&owner).counter(7), &[&owner]);
    let flips = |length: usize| (0..length).flat_map(|byte| (0..8).map(move |bit| (byte, 1_u8 << bit)));
    for (byte, bit) in flips(signed.manifest.len()) {
        let mut flipped = signed.clone();
        flipped.manifest[byte] ^= bit;
        assert!(
            root.verify(&flipped, Subject::Plugin, "rules", ARTIFACT, now()).is_err(),
            "byte {byte} of the manifest"
        );
    }
    for (byte, bit) in flips(ARTIFACT.len()) {
        let mut flipped = ARTIFACT.to_vec();
        flipped[byte] ^= bit;
        assert!(
            root.verify(&signed, Subject::Plugin, "rules", &flipped, now()).is_err(),
            "byte {byte} of the artifact"
        );
    }
    // The comment that is not signed may change, nothing else; what is decoded the same is the same.
    let untrusted = signed.signatures[0].lines().next().unwrap().len() + 1;
    for (byte, bit) in flips(signed.signatures[0].len()).filter(|(byte, _)| *byte >= untrusted) {
        let mut flipped = signed.signatures[0].clone().into_bytes();
        flipped[byte] ^= bit;
        let Ok(flipped) = String::from_utf8(flipped) else { continue };
        if flipped.trim_end() == signed.signatures[0].trim_end() || flipped.lines().eq(signed.signatures[0].lines()) {
            continue;
        }
        let flipped = Signed { signatures: vec![flipped], ..signed.clone() };
        assert!(
            root.verify(&flipped, Subject::Plugin, "rules", ARTIFACT, now()).is_err(),
            "byte {byte} of the signature"
        );
    }
}

/// Fault 24: an old artifact replayed, and after a restart.
#[test]
fn what_is_older_is_refused_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let owner = key();
    let root = root_of(&[&owner]);
    let versions: Vec<_> = (0..4).map(|counter| verified(&root, &owner, counter, 0)).collect();
    let (mut ledger, recovery) = Ledger::open(&path, &root, []).unwrap();
    assert_eq!(recovery, Recovery::New);
    for served in [&versions[0], &versions[2]] {
        ledger.accept(served, NEW).unwrap();
        ledger.settle(served).unwrap();
    }
    for _ in 0..2 {
        for old in &versions[..3] {
            let error = ledger.accept(old, NEW).unwrap_err();
            assert!(matches!(error, LedgerError::Replayed { highest: 2, .. }), "{error}");
        }
        ledger.accept(&versions[2], Purpose::Reload { serving: Some(versions[2].id()) }).expect("it serves already");
        ledger.accept(&versions[1], Purpose::Rollback).expect("nothing has revoked it");
        let (again, recovery) = Ledger::open(&path, &root, []).unwrap();
        assert_eq!(recovery, Recovery::Read);
        ledger = again;
    }
    ledger.accept(&versions[3], NEW).unwrap();
}

#[test]
fn what_was_revoked_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let owner = key();
    let root = root_of(&[&owner]);
    let (mut ledger, _) = Ledger::open(&path, &root, []).unwrap();
    ledger.accept(&verified(&root, &owner, 5, 0), NEW).unwrap();
    let next = verified(&root, &owner, 6, 6);
    ledger.accept(&next, NEW).unwrap();
    assert_eq!(ledger.floor("rules", Subject::Plugin), 0, "it has not served for long enough to revoke anything");
    ledger.settle(&next).unwrap();
    let (mut ledger, _) = Ledger::open(&path, &root, []).unwrap();
    assert_eq!(ledger.floor("rules", Subject::Plugin), 6);
    for purpose in [Purpose::Rollback, NEW, Purpose::Reload { serving: Some(next.id()) }] {
        let error = ledger.accept(&verified(&root, &owner, 5, 0), purpose).unwrap_err();
        assert!(matches!(error, LedgerError::Revoked { counter: 5, floor: 6 }), "{error}");
    }
    // What has accepted a lower floor later does not lower it, and another slot has its own.
    let later = verified(&root, &owner, 7, 2);
    ledger.accept(&later, NEW).unwrap();
    ledger.settle(&later).unwrap();
    assert_eq!((ledger.floor("rules", Subject::Plugin), ledger.floor("prices", Subject::Plugin)), (6, 0));
}

/// A key that was stolen and has counted to the end of the numbers.
#[test]
fn removing_a_key_drops_what_it_has_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let (stolen, safe) = (key(), key());
    let first = root_of(&[&stolen, &safe]);
    let (mut ledger, _) = Ledger::open(&path, &first, []).unwrap();
    for served in [verified(&first, &safe, 4, 3), verified(&first, &stolen, 1 << 63, 1 << 63)] {
        ledger.accept(&served, NEW).unwrap();
        ledger.settle(&served).unwrap();
    }
    let next = verified(&first, &safe, 5, 0);
    assert!(matches!(ledger.accept(&next, NEW), Err(LedgerError::Revoked { .. })), "locked out");

    let second = first.successor(now() + DAY).without(&stolen.public().id());
    ledger.follow(&second).unwrap();
    assert_eq!(ledger.floor("rules", Subject::Plugin), 4, "what it revoked stays so, as far as others have counted");
    ledger.accept(&next, NEW).unwrap();
    ledger.settle(&next).unwrap();
    assert!(matches!(ledger.accept(&next, NEW), Err(LedgerError::Replayed { highest: 5, .. })));
    assert!(matches!(Ledger::open(&path, &first, []), Err(LedgerError::OldRoot { given: 1, followed: 2 })));
    let (mut ledger, _) = Ledger::open(&path, &second, []).unwrap();
    assert_eq!(ledger.floor("rules", Subject::Plugin), 4);
    assert!(matches!(ledger.follow(&first), Err(LedgerError::OldRoot { .. })));
}

/// A kill, or a swap that failed, between the two.
#[test]
fn what_was_accepted_and_never_served_may_be_tried_again_and_revokes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let owner = key();
    let root = root_of(&[&owner]);
    let (one, two, other) =
        (verified(&root, &owner, 1, 0), verified(&root, &owner, 2, 2), verified(&root, &owner, 2, 1));
    let (mut ledger, _) = Ledger::open(&path, &root, []).unwrap();
    ledger.accept(&one, NEW).unwrap();
    ledger.settle(&one).unwrap();
    ledger.accept(&two, NEW).unwrap();
    let (mut ledger, _) = Ledger::open(&path, &root, [&one]).unwrap();
    ledger.accept(&one, Purpose::Rollback).expect("it serves");
    assert!(matches!(ledger.accept(&other, NEW), Err(LedgerError::Replayed { .. })), "another with its counter");
    ledger.accept(&two, NEW).expect("the same again");
    ledger.settle(&two).unwrap();
    assert!(matches!(ledger.accept(&two, NEW), Err(LedgerError::Replayed { highest: 2, .. })));
    assert!(matches!(ledger.accept(&one, Purpose::Rollback), Err(LedgerError::Revoked { floor: 2, .. })));
}

/// The same module with weaker rules is not what serves.
#[test]
fn what_serves_is_known_by_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let owner = key();
    let root = root_of(&[&owner]);
    let verified = |counter, rules: &[u8]| {
        let signed = sign(&manifest(&owner).counter(counter).rules(rules), &[&owner]);
        root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap()
    };
    let (weak, strict) = (verified(1, b"weak"), verified(2, b"strict"));
    let (mut ledger, _) = Ledger::open(folder.path().join("ledger"), &root, []).unwrap();
    for served in [&weak, &strict] {
        ledger.accept(served, NEW).unwrap();
        ledger.settle(served).unwrap();
    }
    let serving = Purpose::Reload { serving: Some(strict.id()) };
    assert!(matches!(ledger.accept(&weak, serving), Err(LedgerError::Replayed { .. })));
    ledger.accept(&strict, serving).unwrap();
}

/// A key for rules cannot lock the plugins of its slot.
#[test]
fn plugins_and_rules_are_counted_apart() {
    let folder = tempfile::tempdir().unwrap();
    let owner = key();
    let root = root_of(&[&owner]);
    let (mut ledger, _) = Ledger::open(folder.path().join("ledger"), &root, []).unwrap();
    let signed = sign(&manifest(&owner).subject(Subject::Rules).counter(u64::MAX).min_counter(u64::MAX), &[&owner]);
    let rules = root.verify(&signed, Subject::Rules, "rules", ARTIFACT, now()).unwrap();
    ledger.accept(&rules, NEW).unwrap();
    ledger.settle(&rules).unwrap();
    ledger.accept(&verified(&root, &owner, 1, 0), NEW).unwrap();
}

#[test]
fn a_ledger_that_is_lost_is_made_from_the_archive_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let owner = key();
    let root = root_of(&[&owner]);
    let archive = [verified(&root, &owner, 8, 0), verified(&root, &owner, 9, 4), verified(&root, &owner, 3, 0)];
    for nonsense in [None, Some(&b""[..]), Some(b"{}"), Some(b"\0\0\0\0")] {
        let _ = fs::remove_file(&path);
        if let Some(nonsense) = nonsense {
            fs::write(&path, nonsense).unwrap();
        }
        let (ledger, recovery) = Ledger::open(&path, &root, &archive).unwrap();
        assert_eq!((recovery, ledger.floor("rules", Subject::Plugin)), (Recovery::Rebuilt, 4));
        assert!(matches!(ledger.check(&archive[0], NEW), Err(LedgerError::Replayed { highest: 9, .. })));
    }
    fs::write(&path, r#"{"format": 2, "anything": 0}"#).unwrap();
    assert!(matches!(Ledger::open(&path, &root, []), Err(LedgerError::Format { format: 2, .. })), "a later version's");
    fs::write(&path, "nonsense").unwrap();
    assert_eq!(Ledger::open(&path, &root, []).unwrap().1, Recovery::Rebuilt, "it was there");
    // An archive that knows more than the file adds to it.
    let (ledger, recovery) = Ledger::open(&path, &root, &archive[..1]).unwrap();
    assert_eq!(recovery, Recovery::Read);
    assert!(matches!(ledger.check(&archive[2], NEW), Err(LedgerError::Replayed { highest: 8, .. })));
}

#[test]
fn what_cannot_be_remembered_is_not_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let owner = key();
    let root = root_of(&[&owner]);
    let (mut ledger, _) = Ledger::open(inner.join("ledger.json"), &root, []).unwrap();
    fs::remove_dir_all(&inner).unwrap();
    let next = verified(&root, &owner, 1, 0);
    let error = ledger.accept(&next, NEW).unwrap_err();
    assert!(matches!(error, LedgerError::Write { .. }), "{error}");
    fs::create_dir(&inner).unwrap();
    ledger.accept(&next, NEW).expect("it was not accepted before");
    let error = Ledger::open(folder.path().join("inner"), &root, []).unwrap_err();
    assert!(matches!(error, LedgerError::Read { .. }), "a folder is no ledger: {error}");
}

/// A process that accepts one manifest after the other, and says which, is killed at any moment.
#[test]
fn a_kill_at_any_step_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let owner = key();
    let root = root_of(&[&owner]);
    fs::write(folder.path().join("root"), root.to_bytes()).unwrap();
    fs::write(folder.path().join("key"), owner.secret_file().unwrap()).unwrap();
    let mut last = 0;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "accepts_for_ever", "--nocapture"])
            .env("LEDGER_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Killed while it works on the next one, after a different number of them in each round.
        let accepted = lines.filter_map(|line| line.strip_prefix("accepted ").and_then(|it| it.parse::<u64>().ok()));
        last = accepted.take(1 + round % 7).last().expect("it accepts");
        child.kill().unwrap();
        child.wait().unwrap();
        let (ledger, recovery) = Ledger::open(&path, &root, []).unwrap();
        assert_eq!(recovery, Recovery::Read, "the file is whole");
        let replay = verified(&root, &owner, last, 0);
        assert!(
            matches!(ledger.check(&replay, NEW), Err(LedgerError::Replayed { .. })),
            "{last} was accepted and forgotten"
        );
    }
    assert!(last >= 20);
}

#[test]
#[ignore = "a process that another test starts and kills"]
fn accepts_for_ever() {
    let Some(folder) = std::env::var_os("LEDGER_FOLDER") else { return };
    let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).unwrap();
    let (root, owner) = (Root::trusted(read("root").as_bytes()).unwrap(), KeyPair::read(&read("key"), None).unwrap());
    let (mut ledger, _) = Ledger::open(Path::new(&folder).join("ledger.json"), &root, []).unwrap();
    for counter in 1.. {
        match ledger.accept(&verified(&root, &owner, counter, 0), NEW) {
            Ok(()) => {
                ledger.settle(&verified(&root, &owner, counter, 0)).unwrap();
                println!("accepted {counter}");
            }
            Err(LedgerError::Replayed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn keys_are_read_as_minisign_writes_them() {
    let pair = key();
    let public: PublicKey = format!("untrusted comment: minisign public key\n{}\n", pair.public()).parse().unwrap();
    assert_eq!((&public, public.id()), (&pair.public(), pair.public().id()));
    // The number in front of a key is anybody's choice, and names nothing.
    let mut letters: Vec<char> = pair.public().to_string().chars().collect();
    letters[5] = if letters[5] == 'A' { 'B' } else { 'A' };
    let renumbered: PublicKey = letters.into_iter().collect::<String>().parse().unwrap();
    assert_eq!(renumbered.id(), pair.public().id());
    assert_ne!(renumbered, pair.public());
    let again = KeyPair::read(&pair.secret_file().unwrap(), None).unwrap();
    assert_eq!(again.public(), pair.public());
    // The example of minisign-verify's own documentation: a key and a signature that the tool has made.
    let public: PublicKey = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse().unwrap();
    let root = Root::first(&[public], now() + DAY);
    assert_eq!(Root::trusted(&root.to_bytes()).unwrap(), root);
}

/// Operators have the tool: what it signs is verified, and it verifies what is signed here.
#[test]
fn the_tool_itself_agrees() {
    if Command::new("minisign").arg("-v").output().is_err() {
        println!("skipped: minisign is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // It asks for the password of its key, twice for a new one.
    let minisign = |args: &[&str]| {
        let mut child = Command::new("minisign").args(args).current_dir(&folder).stdin(Stdio::piped()).spawn().unwrap();
        // It may end without having read them.
        let _ = child.stdin.take().unwrap().write_all(b"a password\na password\n");
        assert!(child.wait().unwrap().success(), "{args:?}");
    };
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    minisign(&["-G", "-p", "tool.pub", "-s", "tool.key"]);
    let public: PublicKey = read("tool.pub").parse().unwrap();
    let manifest = Manifest::new("rules", ARTIFACT, public.id()).to_bytes();
    fs::write(folder.path().join("manifest"), &manifest).unwrap();
    minisign(&["-S", "-s", "tool.key", "-m", "manifest"]);
    let root = Root::first(&[public], now() + DAY);
    let signed = Signed { manifest, signatures: vec![read("manifest.minisig")] };
    root.verify(&signed, Subject::Plugin, "rules", ARTIFACT, now()).unwrap();

    let same = KeyPair::read(&read("tool.key"), Some("a password".to_owned())).unwrap();
    fs::write(folder.path().join("manifest.minisig"), same.sign(&signed.manifest).unwrap()).unwrap();
    minisign(&["-V", "-p", "tool.pub", "-m", "manifest"]);
    // The older format, which is not prehashed, does not count.
    minisign(&["-S", "-l", "-s", "tool.key", "-m", "manifest"]);
    let legacy = Signed { signatures: vec![read("manifest.minisig")], ..signed };
    assert!(matches!(
        root.verify(&legacy, Subject::Plugin, "rules", ARTIFACT, now()),
        Err(NotTrusted::TooFewSignatures { .. })
    ));
}

#[test]
fn a_secret_key_can_have_a_password() {
    let (pair, file) = KeyPair::generate_encrypted("a password".to_owned()).unwrap();
    assert!(KeyPair::read(&file, Some("another".to_owned())).is_err());
    assert!(KeyPair::read(&file, None).is_err());
    let again = KeyPair::read(&file, Some("a password".to_owned())).unwrap();
    assert_eq!(again.public(), pair.public());
    let signature = again.sign(b"text").unwrap();
    assert!(signature.lines().count() == 4 && !format!("{again:?}").contains("secret"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// A simple reference: what was accepted is kept in memory, and every manifest is compared with all of it.
    #[test]
    fn the_ledger_does_as_the_rules_say(steps in prop::collection::vec((0..2_usize, 0..6_u64, 0..6_u64, 0..2_u8), 1..24)) {
        let folder = tempfile::tempdir().unwrap();
        let keys = [key(), key()];
        let root = root_of(&[&keys[0], &keys[1]]);
        let (mut ledger, _) = Ledger::open(folder.path().join("ledger"), &root, []).unwrap();
        let mut accepted: Vec<(usize, u64, u64)> = Vec::new();
        for (signer, counter, min, rollback) in steps {
            let min = min.min(counter);
            let floor = accepted.iter().map(|(_, _, min)| *min).max().unwrap_or(0);
            let highest = accepted.iter().filter(|(by, ..)| *by == signer).map(|(_, counter, _)| *counter).max();
            let expected = counter >= floor && (rollback == 1 || highest.is_none_or(|highest| counter > highest));
            let purpose = if rollback == 1 { Purpose::Rollback } else { NEW };
            let found = ledger.accept(&verified(&root, &keys[signer], counter, min), purpose);
            prop_assert_eq!(found.is_ok(), expected);
            if expected {
                ledger.settle(&verified(&root, &keys[signer], counter, min)).unwrap();
                accepted.push((signer, counter, min));
            }
            if counter == 3 {
                ledger = Ledger::open(folder.path().join("ledger"), &root, []).unwrap().0;
            }
        }
    }
}
