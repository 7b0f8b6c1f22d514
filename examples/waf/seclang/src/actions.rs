//! The actions of a rule as they are written. The engine takes some for others that do nothing, so their names are looked at first.

/// An action with its value, quotes around it removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// In lower case.
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Cuts a list of actions, as the engine does: at commas outside of quotes and parentheses.
pub(crate) fn written(list: &str) -> Vec<Written> {
    let mut found = Vec::new();
    let (mut one, mut quote, mut depth) = (String::new(), None, 0_usize);
    for next in list.chars().chain([',']) {
        match (quote, next) {
            (Some(open), _) if next == open => quote = None,
            (None, '"' | '\'') => quote = Some(next),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                found.extend(action(&one));
                one.clear();
                continue;
            }
            _ => {}
        }
        one.push(next);
    }
    // A quote or a parenthesis that is open: the comma behind the list is in it.
    found.extend(action(one.strip_suffix(',').unwrap_or(&one)));
    found
}

fn action(text: &str) -> Option<Written> {
    let text = text.trim();
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let value = value.trim().trim_matches(['\'', '"']);
    (!text.is_empty()).then(|| Written { name: name.trim().to_ascii_lowercase(), value: value.to_owned() })
}

/// Returns the value of the last action of a name.
pub(crate) fn value<'a>(actions: &'a [Written], name: &str) -> Option<&'a str> {
    actions.iter().rfind(|action| action.name == name).map(|action| action.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_cut_at_commas_outside_of_quotes() {
        let list = "id:1, phase:2,msg:'a, b',t:lowercase ,setvar:'tx.a=+%{tx.b}',chain";
        let found: Vec<_> = written(list).into_iter().map(|action| (action.name, action.value)).collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [
            pair("id", "1"),
            pair("phase", "2"),
            pair("msg", "a, b"),
            pair("t", "lowercase"),
            pair("setvar", "tx.a=+%{tx.b}"),
            pair("chain", ""),
        ];
        assert_eq!(found, expected);
        assert_eq!(written("msg:'open,chain").len(), 1);
        assert_eq!(written(" , ,"), []);
    }
}
