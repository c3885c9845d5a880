//! Tells what a request belongs to.
//! In: `Source`. Out: the key, those below it, and values as they would be written.

use tandem_core::clustering::load_balanced::key::Source;

type Value = (String, Option<String>);

pub(super) fn values(path: &str, of: Option<&Source>, values: &mut Vec<Value>) {
    let (all, parts) = match of {
        None => (None, None),
        Some(Source::Address) => (Some("source".to_owned()), None),
        Some(Source::Header(name)) => {
            (Some(format!("header {name}")), Some([Some(name.clone()), None, None]))
        }
        Some(Source::Cookie(name)) => {
            (Some(format!("cookie {name}")), Some([None, Some(name.clone()), None]))
        }
        Some(Source::PathSegment(place)) => {
            let place = place.to_string();
            (Some(format!("path_segment {place}")), Some([None, None, Some(place)]))
        }
    };
    values.push((path.to_owned(), all));
    let names = ["header", "cookie", "path_segment"];
    for (name, value) in names.into_iter().zip(parts.into_iter().flatten()) {
        values.push((format!("{path}.{name}"), value));
    }
}
