use super::*;
use crate::config::show;
use tandem_core::clustering::load_balanced::key::Source;

const WEB: &str = r#"
[services.web]
kind = "http"
clustering = "load-balanced"
replication = "none"
listen = 8080
upstreams = ["10.0.0.11:80"]
balance = "hash"
hash_key = { header = "X-Shop" }
"#;

fn web(old: &str, new: &str) -> String {
    assert!(WEB.contains(old), "{old:?}");
    format!("{GOOD}{}", WEB.replacen(old, new, 1))
}

#[test]
fn a_hash_goes_by_what_its_owner_says() {
    let key = |written: &str| {
        let config = parse(&web("hash_key = { header = \"X-Shop\" }", written));
        config.balanced[&"web".into()].http.as_ref().expect("http").hash_key.clone()
    };
    assert_eq!(key(""), Some(Source::Address));
    assert_eq!(key("hash_key = \"source\""), Some(Source::Address));
    assert_eq!(key("hash_key = { cookie = \"sid\" }"), Some(Source::Cookie("sid".to_owned())));
    assert_eq!(key("hash_key = { path_segment = 2 }"), Some(Source::PathSegment(2)));
    let header = parse(&web("", ""));
    let shown = show(&header);
    let value = |key: &str| {
        shown
            .iter()
            .find(|it| it.key == format!("services.web.{key}"))
            .expect("shown")
            .value
            .clone()
    };
    assert_eq!(value("hash_key").as_deref(), Some("header X-Shop"));
    assert_eq!(value("hash_key.header").as_deref(), Some("X-Shop"));
    let other = parse(&web("balance = \"hash\"\nhash_key = { header = \"X-Shop\" }", ""));
    assert_eq!(other.balanced[&"web".into()].http.as_ref().expect("http").hash_key, None);
}

#[test]
fn what_is_no_key_is_told_at_its_place() {
    for (old, new, expected) in [
        ("\"X-Shop\"", "\"X Shop\"", "TDM0207 error 31:23 +8: services.web.hash_key.header"),
        ("\"X-Shop\"", "\"\"", "TDM0207 error 31:23 +2: services.web.hash_key.header"),
        ("header = \"X-Shop\"", "cookie = \"a=b\"", "TDM0207 error 31:23 +5: services.web.hash_"),
        ("header = \"X-Shop\"", "path_segment = 0", "TDM0208 error 31:29 +1: services.web.hash_"),
        ("header = \"X-Shop\"", "", "TDM0205 error 31:12 +4: services.web.hash_key names no key"),
        (
            "header = \"X-Shop\"",
            "header = \"a\", path_segment = 1",
            "TDM0220 error 31:43 +1: services.web.hash_key names more than one key",
        ),
        ("{ header = \"X-Shop\" }", "\"src\"", "TDM0207 error 31:12 +5: services.web.hash_key"),
        ("{ header = \"X-Shop\" }", "7", "TDM0206 error 31:12 +1: services.web.hash_key"),
        ("header =", "heder =", "TDM0203 error 31:14 +5: unknown key `services.web.hash_key.hed"),
        (
            "balance = \"hash\"",
            "balance = \"random\"",
            "TDM0220 error 31:12 +21: services.web.hash_key has no effect",
        ),
        ("balance = \"hash\"\n", "", "TDM0220 error 30:12 +21: services.web.hash_key has no eff"),
        (
            "kind = \"http\"",
            "kind = \"tcp\"",
            "TDM0220 error 31:1 +8: services.web.hash_key does not go with kind = \"tcp\"",
        ),
    ] {
        let found = lines(&problems(&web(old, new)));
        assert!(found.iter().any(|line| line.starts_with(expected)), "{new}: {found:?}");
    }
}
