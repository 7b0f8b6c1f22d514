//! What crosses an interface comes out as it went in, whatever carries it.

use hotslot_fixture_interface::{Note, Order, Refusal, Side, Values};
use hotslot_plugin::{CallError, CallErrorKind};

use super::slots;

fn each(check: impl Fn(&str, &dyn Values)) {
    for (kind, slot) in slots::<dyn Values>("values") {
        check(kind, &*slot.load());
    }
}

const ORDER: Order = Order {
    side: Side::Sell,
    price: -0.1,
    change: i32::MIN,
    quantities: [0, 1, u16::MAX],
    limit: Some(255),
    is_firm: true,
    mark: '▲',
};

#[test]
fn plain_values_are_the_same_on_both_sides() {
    each(|kind, values| {
        assert_eq!(values.order(ORDER), ORDER, "{kind}");
        let without = Order { limit: None, is_firm: false, side: Side::Buy, ..ORDER };
        assert_eq!(values.order(without), without, "{kind}");
        assert_eq!((values.turned(&ORDER), values.turned(&without)), (Side::Buy, Side::Sell), "{kind}");
        values.nothing();
    });
}

#[test]
fn numbers_of_every_width_keep_their_value_at_both_ends() {
    each(|kind, values| {
        let most = values.numbers(
            u8::MAX,
            u16::MAX,
            u32::MAX,
            u64::MAX,
            i8::MAX,
            i16::MAX,
            i32::MAX,
            i64::MAX,
            f32::MAX,
            f64::MAX,
            true,
        );
        let (f, g) = (f32::MAX, f64::MAX);
        let expected =
            format!("255 65535 4294967295 18446744073709551615 127 32767 2147483647 9223372036854775807 {f} {g} true");
        assert_eq!(most, expected, "{kind}");
        let least = values.numbers(0, 0, 0, 0, i8::MIN, i16::MIN, i32::MIN, i64::MIN, f32::MIN_POSITIVE, -0.0, false);
        let f = f32::MIN_POSITIVE;
        assert_eq!(least, format!("0 0 0 0 -128 -32768 -2147483648 -9223372036854775808 {f} -0 false"), "{kind}");
    });
}

#[test]
fn bytes_and_text_of_any_length_arrive_whole() {
    each(|kind, values| {
        assert_eq!(values.joined(b"", "", vec![], String::new()), b"", "{kind}");
        assert_eq!(values.joined(b"\0\xff", "é", vec![1, 2], "▲".to_owned()), b"\0\xff\xc3\xa9\x01\x02\xe2\x96\xb2");
        // More than any room that was made before, then less again.
        for length in [1 << 20, 3] {
            let long = vec![7; length];
            assert_eq!(values.joined(&long, "x", long.clone(), String::new()).len(), 2 * length + 1, "{kind}");
        }
    });
}

#[test]
fn types_of_serde_cross() {
    let note = |subject: &str| Note { subject: subject.to_owned(), lines: vec!["a".to_owned()], at: Some(u64::MAX) };
    each(|kind, values| {
        let noted = values.noted(&note("first"), vec![note("second"), note("third")]);
        assert_eq!(noted.lines, ["second", "third", "a"], "{kind}");
        assert_eq!((noted.subject.as_str(), noted.at), ("first", Some(u64::MAX)), "{kind}");
    });
}

#[test]
fn a_result_comes_back_as_one() {
    each(|kind, values| {
        assert_eq!(values.willing(true).unwrap().mark, '▲', "{kind}");
        assert_eq!(values.willing(false), Err(Refusal::Unwilling("no".to_owned())), "{kind}");
    });
}

#[test]
fn the_trait_says_what_a_host_gets_when_a_plugin_panics() {
    each(|kind, values| {
        assert_eq!(values.panics_to(), Side::Sell, "{kind}: #[on_error]");
        assert!(matches!(values.panics_with(), Err(Refusal::Call(_))), "{kind}: From<CallError>");
        let unwound = CallError::catch(|| values.panics()).unwrap_err();
        assert_eq!(unwound.kind(), CallErrorKind::Panicked, "{kind}: neither");
    });
}
