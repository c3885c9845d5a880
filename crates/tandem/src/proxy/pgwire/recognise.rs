//! Decides whether statements lower what commits wait for (H13), or hide the warning that a wait
//! was cancelled (H11).
//! In: tokens of one text. Out: `Lowered`, and whether the session is armed.
//! Rules: `SET name = value` (of a session, transaction, role, database, function) and
//! `set_config('name', 'value', …)` pass with a value that lowers nothing, and are refused with any
//! other one, or one that is not there to be read. `UPDATE pg_settings` of the name is refused. A
//! name that is a whole literal beside a `set_config` that takes its name from elsewhere is refused
//! as well. A literal is looked into where its statement runs it: DO, the body of a function, and
//! EXECUTE within such a body; everywhere else it is data.
//! Armed: a statement computes which setting it sets, so that later arguments may name it.
//! Not here: tokens (`lex.rs`, `token.rs`); what is put together, encoded or done by functions that
//! exist: no reader of texts sees it, `audit.rs` sees some of it.
//! Tested by: below, `scan.rs`, `tests/postgres.rs`.

use super::durability::{Lowered, Setting};
use super::token::{Kind, Token};

/// The word that a statement begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    None,
    Do,
    Create,
    Alter,
    Other,
}

/// What the tokens so far can be the beginning of.
#[derive(Clone, Copy)]
enum Phase {
    Nothing,
    /// `SET`, `SET LOCAL`.
    Set,
    /// `SET name`.
    Named(&'static Setting),
    /// `SET name =`.
    Assign(&'static Setting),
    /// `set_config`.
    Config,
    /// `set_config(`.
    ConfigName,
    /// `set_config('name'`.
    ConfigNamed(&'static Setting),
    /// `set_config('name',`.
    ConfigValue(&'static Setting),
    /// `set_config('name', 'value'`, where the value lowers nothing.
    ConfigDone(&'static Setting),
    /// `current_setting`, `current_setting(`.
    Reads,
    /// `UPDATE`, `UPDATE ONLY (`, `UPDATE pg_catalog.`.
    Update,
    /// `UPDATE pg_catalog`: a table, or what it is in.
    Target,
}

/// Reads the statements of one text.
pub(super) struct Recogniser {
    /// The text is a literal that its statement runs.
    inner: bool,
    armed: bool,
    first: First,
    phase: Phase,
    /// FUNCTION or PROCEDURE was said.
    routine: bool,
    execute: bool,
    /// What follows SET may be a column.
    update: bool,
    /// The last word makes the next UPDATE a lock.
    locks: bool,
    /// The statement computes which setting it sets.
    computed: bool,
    /// A whole literal of the statement is this name.
    literal: Option<&'static Setting>,
    found: Option<Lowered>,
}

impl Recogniser {
    /// `inner`: the text is a literal of another one. `armed`: an earlier statement of the session
    /// takes the name of a setting as an argument.
    pub(super) fn new(inner: bool, armed: bool) -> Self {
        Self {
            inner,
            armed,
            first: First::None,
            phase: Phase::Nothing,
            routine: false,
            execute: false,
            update: false,
            locks: false,
            computed: false,
            literal: None,
            found: None,
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// A literal that begins here is a text that will be run.
    pub(super) fn runs_literals(&self) -> bool {
        match self.first {
            First::Do => true,
            First::Create if self.routine => true,
            First::None | First::Create | First::Alter | First::Other => self.inner && self.execute,
        }
    }

    /// What was found in a literal that is run.
    pub(super) fn heard(&mut self, found: Option<Lowered>, armed: bool) {
        self.armed |= armed;
        self.found = self.found.take().or(found);
    }

    /// The end of the text.
    pub(super) fn finish(mut self) -> (Option<Lowered>, bool) {
        // Where a text is put together, the value comes from elsewhere.
        if let Phase::Assign(setting) = self.phase
            && self.inner
        {
            self.refuse(setting, None);
        }
        (self.found, self.armed)
    }

    /// Only a word, a string or the end of the statement can change anything.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Nothing) && !self.locks && self.first != First::None
    }

    /// The next token.
    pub(super) fn token(&mut self, token: Token<'_>) {
        if token.is(Kind::Symbol, ";") {
            return self.end_statement();
        }
        self.phase = self.follow(token);
        if token.kind == Kind::Word {
            self.word(token);
        } else {
            self.locks = false;
        }
        self.armed |= self.computed;
        let runs = self.execute && (self.inner || self.armed);
        if let Some(setting) = self.literal
            && (self.computed || runs)
        {
            self.refuse(setting, None);
        }
    }

    fn end_statement(&mut self) {
        let (found, armed) = (self.found.take(), self.armed);
        *self = Self { found, ..Self::new(self.inner, armed) };
    }

    fn refuse(&mut self, setting: &'static Setting, value: Option<Token<'_>>) {
        let value = value
            .filter(|value| value.kind != Kind::Symbol)
            .and_then(|value| value.text)
            .map(|text| String::from_utf8_lossy(text).into_owned());
        self.found.get_or_insert(Lowered { setting, value });
    }

    /// What the phase becomes with a token.
    fn follow(&mut self, token: Token<'_>) -> Phase {
        match self.phase {
            Phase::Nothing => {}
            Phase::Set if token.is(Kind::Word, "local") || token.is(Kind::Word, "session") => {
                return Phase::Set;
            }
            Phase::Set => {
                let routine = self.first == First::Create && self.routine;
                let column = self.update && self.first != First::Alter && !routine;
                if let Some(setting) = token.name()
                    && !column
                {
                    return Phase::Named(setting);
                }
            }
            Phase::Named(setting) => {
                if token.is(Kind::Symbol, "=") || token.is(Kind::Word, "to") {
                    return Phase::Assign(setting);
                }
            }
            Phase::Assign(setting) => {
                if !token.is(Kind::Word, "default") && !token.keeps(setting) {
                    self.refuse(setting, Some(token));
                }
                return Phase::Nothing;
            }
            Phase::Reads => {
                if token.is(Kind::Symbol, "(") {
                    return Phase::Reads;
                }
                if token.kind == Kind::Literal {
                    return Phase::Nothing;
                }
            }
            Phase::Update => return self.follow_update(token),
            Phase::Target if token.is(Kind::Symbol, ".") => return Phase::Update,
            Phase::Target => {}
            Phase::Config
            | Phase::ConfigName
            | Phase::ConfigNamed(_)
            | Phase::ConfigValue(_)
            | Phase::ConfigDone(_) => {
                if let Some(phase) = self.follow_config(token) {
                    return phase;
                }
            }
        }
        self.start(token)
    }

    /// Where the name of a table is due.
    fn follow_update(&mut self, token: Token<'_>) -> Phase {
        if token.is(Kind::Word, "only") || token.is(Kind::Symbol, "(") {
            return Phase::Update;
        }
        self.computed |= token.is_name("pg_settings");
        match self.start(token) {
            Phase::Nothing if token.names() => Phase::Target,
            phase => phase,
        }
    }

    /// Within `set_config(…)`; none where the token must be looked at by itself.
    fn follow_config(&mut self, token: Token<'_>) -> Option<Phase> {
        let cast = token.is(Kind::Symbol, ":") || token.names();
        match self.phase {
            Phase::Config if token.is(Kind::Symbol, "(") => Some(Phase::ConfigName),
            Phase::ConfigName if token.kind == Kind::Literal && token.text.is_some() => {
                token.setting().map(Phase::ConfigNamed)
            }
            Phase::ConfigName => {
                self.computed = true;
                None
            }
            Phase::ConfigNamed(setting) if token.is(Kind::Symbol, ",") => {
                Some(Phase::ConfigValue(setting))
            }
            Phase::ConfigNamed(_) | Phase::ConfigDone(_) if cast => Some(self.phase),
            Phase::ConfigValue(setting)
                if token.is(Kind::Word, "null")
                    || (token.kind == Kind::Literal && token.keeps(setting)) =>
            {
                Some(Phase::ConfigDone(setting))
            }
            Phase::ConfigValue(setting) => {
                self.refuse(setting, Some(token).filter(|token| token.kind == Kind::Literal));
                None
            }
            Phase::ConfigNamed(setting) | Phase::ConfigDone(setting) => {
                if !token.is(Kind::Symbol, ",") {
                    self.refuse(setting, None);
                }
                None
            }
            Phase::Nothing
            | Phase::Set
            | Phase::Named(_)
            | Phase::Assign(_)
            | Phase::Config
            | Phase::Reads
            | Phase::Update
            | Phase::Target => None,
        }
    }

    /// A token that continues nothing.
    fn start(&mut self, token: Token<'_>) -> Phase {
        match token.kind {
            Kind::Literal => {
                self.literal = self.literal.or(token.setting());
                Phase::Nothing
            }
            Kind::Word | Kind::Quoted => {
                if token.kind == Kind::Word && token.is(Kind::Word, "set") {
                    Phase::Set
                } else if token.is_name("set_config") {
                    Phase::Config
                } else if token.is_name("current_setting") {
                    Phase::Reads
                } else if token.is(Kind::Word, "update") && !self.locks {
                    self.update = true;
                    Phase::Update
                } else {
                    Phase::Nothing
                }
            }
            Kind::Symbol => Phase::Nothing,
        }
    }

    /// What a word says about its statement.
    fn word(&mut self, token: Token<'_>) {
        let mut lower = [0; 16];
        let text = token.text.unwrap_or_default();
        let word: &[u8] = match lower.get_mut(..text.len()) {
            Some(lower) => {
                lower.copy_from_slice(text);
                lower.make_ascii_lowercase();
                lower
            }
            None => b"",
        };
        if self.first == First::None {
            self.first = match word {
                b"do" => First::Do,
                b"create" => First::Create,
                b"alter" => First::Alter,
                _ => First::Other,
            };
        }
        self.locks = matches!(word, b"for" | b"key");
        match word {
            b"function" | b"procedure" => self.routine = true,
            b"execute" => self.execute = true,
            // In a body, a statement begins behind these.
            b"begin" | b"then" | b"else" | b"loop" if self.inner => {
                self.first = First::None;
                self.update = false;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lex::Text;
    use super::Lowered;

    fn read(text: &str, armed: bool) -> (Option<Lowered>, bool) {
        let mut whole = Text::new(armed);
        whole.feed(text.as_bytes());
        let whole = whole.finish();
        let mut bytes = Text::new(armed);
        text.bytes().for_each(|byte| bytes.feed(&[byte]));
        assert_eq!(whole, bytes.finish(), "{text}");
        whole
    }

    fn refused(text: &str) -> Lowered {
        read(text, false).0.unwrap_or_else(|| panic!("passed: {text}"))
    }

    fn passes(text: &str) {
        assert_eq!(read(text, false).0, None, "{text}");
    }

    #[test]
    fn h13_every_plain_way_to_lower_it_is_seen() {
        for (text, value) in [
            ("SET synchronous_commit = off", "off"),
            ("set Synchronous_Commit to LOCAL", "LOCAL"),
            ("SET LOCAL synchronous_commit TO 'remote_write';", "remote_write"),
            ("SET SESSION synchronous_commit=0", "0"),
            ("SET\tsynchronous_commit\n=\r\nfalse", "false"),
            ("SET \"synchronous_commit\" = \"off\"", "off"),
            ("SET /* a /* nested */ one */ synchronous_commit -- two\n = E'off'", "off"),
            ("SET synchronous_commit = $$off$$", "off"),
            ("SET synchronous_commit = $a$o$a$", "o"),
            ("BEGIN; SET LOCAL synchronous_commit = off; COMMIT", "off"),
            ("SELECT 'it''s'; SET synchronous_commit = off", "off"),
            ("SELECT E'it\\'s'; SET synchronous_commit = off", "off"),
            ("SELECT E'a'\n'b\\''; SET synchronous_commit = off", "off"),
            ("SELECT E'a' -- it's\n 'b\\''; SET synchronous_commit = off", "off"),
            ("SELECT 'a'\n'b\\'; SET synchronous_commit = off", "off"),
            ("SELECT U&'a'\n'b\\'; SET synchronous_commit = off", "off"),
            ("SELECT E'a' -\n'b\\'; SET synchronous_commit = off", "off"),
            ("SELECT E'a' /**/\n'b\\'; SET synchronous_commit = off", "off"),
            ("SET synchronous_commit = 'o'\n'ff'", "off"),
            ("SELECT set_config('synchronous_'\n'commit', 'off', false)", "off"),
            ("SELECT $x$ ' $y$ $x$; SET synchronous_commit = off", "off"),
            ("SELECT a$b, $1 FROM t; SET synchronous_commit = off", "off"),
            ("UPDATE t SET a = 1; SET synchronous_commit = off", "off"),
            ("ALTER ROLE CURRENT_USER SET synchronous_commit = off", "off"),
            ("ALTER ROLE app IN DATABASE app SET synchronous_commit TO local", "local"),
            ("ALTER DATABASE app SET synchronous_commit = off", "off"),
            ("ALTER SYSTEM SET synchronous_commit = off", "off"),
            ("ALTER FUNCTION audit.update() SET synchronous_commit = off", "off"),
            ("CREATE FUNCTION update() RETURNS int SET synchronous_commit = off", "off"),
            ("SELECT set_config('synchronous_commit', 'off', false)", "off"),
            ("SELECT pg_catalog.set_config ( 'Synchronous_Commit'::text , 'off' , true)", "off"),
            ("ALTER ROLE \"set\" SET \"synchronous_commit\" = off", "off"),
            ("SET U&\"synchronous_commit\" = off", "off"),
            ("ALTER ROLE app SET u&\"Synchronous_Commit\" TO U&'off'", "off"),
            ("SELECT \"pg_catalog\".\"set_config\"(U&'synchronous_commit', 'off', true)", "off"),
            ("SELECT set_config('synchronous_commit'::\"text\", 'off', true)", "off"),
        ] {
            let found = refused(text);
            assert_eq!(found.setting.name, "synchronous_commit", "{text}");
            assert_eq!(found.value.as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn h11_every_plain_way_to_silence_the_warning_is_seen() {
        for text in [
            "SET client_min_messages = error",
            "SET client_min_messages TO 'FATAL'",
            "SET LOCAL client_min_messages = panic",
            "SELECT set_config('client_min_messages', 'error', true)",
            "ALTER ROLE me SET client_min_messages = ERROR",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET client_min_messages = error AS ''",
        ] {
            assert_eq!(refused(text).setting.name, "client_min_messages", "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for text in [
            "SET synchronous_commit = U&'o\\006e'",
            "SET synchronous_commit = E'o\\x6e'",
            "SET synchronous_commit = +1",
            "SET synchronous_commit = a_value_that_is_longer_than_any",
            "SELECT set_config('synchronous_commit', $1, false)",
            "SELECT set_config('synchronous_commit', 'on' || x, false)",
            "SELECT set_config('synchronous_commit', lower('ON'), false)",
            "SELECT set_config('synchronous_commit' || x, 'on', false)",
            "SELECT set_config(n, v, false) FROM (VALUES ('synchronous_commit', 'on')) s(n, v)",
            "WITH s AS (SELECT 'client_min_messages' n) SELECT set_config(s.n, 'x', true) FROM s",
            "SELECT set_config(setting_name => 'synchronous_commit', new_value => 'off')",
            "UPDATE pg_settings SET setting = 'off' WHERE name = 'synchronous_commit'",
            "UPDATE pg_catalog.pg_settings SET setting = $1 WHERE name = 'synchronous_commit'",
            "UPDATE \"pg_catalog\".\"pg_settings\" SET setting = 'off' \
             WHERE name = 'synchronous_commit'",
            "UPDATE app.pg_catalog.\"pg_settings\" SET setting = $1 \
             WHERE name = 'synchronous_commit'",
            "UPDATE ONLY (pg_settings) SET setting = $1 WHERE name = 'synchronous_commit'",
            "WITH u AS (UPDATE U&\"pg_settings\" SET setting = $1 WHERE name = \
             'synchronous_commit') SELECT 1",
        ] {
            refused(text);
        }
    }

    #[test]
    fn what_is_run_is_looked_into() {
        for text in [
            "DO $$BEGIN SET LOCAL synchronous_commit = off; END$$",
            "DO $x$ DECLARE a text := 'b'; BEGIN IF a THEN SET synchronous_commit=off$x$",
            "DO LANGUAGE plpgsql 'BEGIN SET synchronous_commit = ''off''; END'",
            "DO 'BEGIN SET '\n'synchronous_commit = off; END'",
            "DO E'BEGIN\\n SET synchronous_commit = \\'off\\'; END'",
            "DO $$BEGIN PERFORM set_config('synchronous_commit', 'off', true); END$$",
            "DO $$BEGIN PERFORM set_config('synchronous_commit', v, true); END$$",
            "DO $$BEGIN EXECUTE 'SET synchronous_commit = off'; END$$",
            "DO $$BEGIN EXECUTE 'SET synchronous_commit TO ' || v; END$$",
            "DO $$BEGIN EXECUTE format('SET synchronous_commit = %L', v); END$$",
            "DO $$BEGIN EXECUTE format('SET %I = %L', 'synchronous_commit', v); END$$",
            "DO $$BEGIN EXECUTE $q$SELECT set_config('synchronous_commit','off',true)$q$; END$$",
            "DO $$BEGIN FOR r IN SELECT 1 FOR UPDATE LOOP SET synchronous_commit = off; END$$",
            "DO $$BEGIN x := 'a -- b'; SET synchronous_commit = off; END$$",
            "CREATE OR REPLACE FUNCTION f() RETURNS void AS $f$BEGIN
                 SET LOCAL synchronous_commit TO OFF; END$f$ LANGUAGE plpgsql",
            "CREATE PROCEDURE p() LANGUAGE sql AS 'SET synchronous_commit = off'",
            "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC
                 SELECT set_config('synchronous_commit', 'off', true); END",
            "DO $$BEGIN DO $x$BEGIN SET synchronous_commit = off; END$x$; END$$",
        ] {
            refused(text);
        }
    }

    #[test]
    fn what_lowers_nothing_passes() {
        for text in [
            "SET synchronous_commit = on",
            "SET synchronous_commit TO 'remote_apply'",
            "SET LOCAL synchronous_commit = TRUE; SELECT 1",
            "SET synchronous_commit TO DEFAULT",
            "SET client_min_messages = warning",
            "SET client_min_messages TO 'debug1'",
            "RESET synchronous_commit",
            "CREATE FUNCTION f() RETURNS int SET synchronous_commit FROM CURRENT AS 'select 1'",
            "SELECT set_config('synchronous_commit', 'on', false)",
            "SET U&\"synchronous_commit\" = U&'on'",
            "SELECT set_config('synchronous_commit'::text, 'on'::text, false)",
            "SELECT set_config('synchronous_commit'::\"text\", 'on'::\"text\", false)",
            "SELECT set_config('synchronous_commit', NULL, false)",
            "SELECT set_config('search_path', $1, false), 'synchronous_commit'",
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'restrict'",
            "DO $$BEGIN SET LOCAL client_min_messages = warning; END$$",
            "SET extra.synchronous_commit = off",
            "ALTER SUBSCRIPTION s SET (synchronous_commit = off)",
            "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (synchronous_commit = off)",
        ] {
            passes(text);
        }
    }

    #[test]
    fn reading_and_data_pass() {
        for text in [
            "SHOW synchronous_commit",
            "SELECT current_setting('synchronous_commit')",
            "SELECT set_config($1, $2, true), current_setting('synchronous_commit')",
            "SELECT setting FROM pg_settings WHERE name = 'synchronous_commit'",
            "UPDATE t SET a = (SELECT setting FROM pg_settings WHERE name = 'synchronous_commit')",
            "INSERT INTO log VALUES ('SET synchronous_commit = off')",
            "INSERT INTO log VALUES ($$it said: SET synchronous_commit = off$$)",
            "INSERT INTO log VALUES (E'\\'; SET synchronous_commit = off')",
            "INSERT INTO log VALUES (E'a'\n'\\'; SET synchronous_commit = off')",
            "INSERT INTO log VALUES (E'a' -- '\r\t--\n\n '\\'; SET synchronous_commit = off')",
            "SELECT * FROM log WHERE text LIKE '%SET synchronous_commit = off%'",
            "SELECT 1 -- SET synchronous_commit = off",
            "SELECT 1 /* SET synchronous_commit = off */",
            "SELECT \"SET synchronous_commit = off\"",
            "UPDATE audit SET synchronous_commit = 'off' WHERE id = 1",
            "INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET synchronous_commit = 'off'",
            "SELECT * FROM audit WHERE synchronous_commit = 'off'",
            "DO $$BEGIN INSERT INTO log VALUES ('SET synchronous_commit = off'); END$$",
            "DO $$BEGIN UPDATE a SET synchronous_commit = 'off'; END$$",
            "DO $$BEGIN EXECUTE 'SHOW synchronous_commit'; END$$",
            "COMMENT ON FUNCTION f() IS 'SET synchronous_commit = off'",
            "EXECUTE note('SET synchronous_commit = off')",
            "EXECUTE note('synchronous_commit')",
            "PREPARE x AS INSERT INTO log VALUES ('SET synchronous_commit = off')",
        ] {
            passes(text);
        }
    }

    #[test]
    fn a_statement_that_takes_the_name_of_a_setting_arms_the_session() {
        for (text, arms) in [
            ("SELECT set_config($1, $2, false)", true),
            ("PREPARE s AS SELECT set_config($1, $2, false)", true),
            ("UPDATE pg_settings SET setting = $1 WHERE name = $2", true),
            ("UPDATE \"pg_settings\" SET setting = $1 WHERE name = $2", true),
            ("UPDATE t SET setting = pg_settings.x", false),
            ("UPDATE t SET a = b FROM pg_settings WHERE name = $1", false),
            ("DO $$BEGIN PERFORM set_config(a, b, true); END$$", true),
            ("SELECT set_config('search_path', $1, false)", false),
            ("SELECT setting FROM pg_settings WHERE name = $1", false),
            ("SET synchronous_commit = on", false),
        ] {
            assert_eq!(read(text, false), (None, arms), "{text}");
        }
        assert!(read("EXECUTE s('synchronous_commit', 'off')", true).0.is_some());
        assert_eq!(read("EXECUTE s('search_path', 'x')", true), (None, true));
        assert_eq!(read("SHOW synchronous_commit", true).0, None);
    }
}
