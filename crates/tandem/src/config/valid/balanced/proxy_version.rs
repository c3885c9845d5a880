//! Names the forms of the PROXY protocol's header.

/// A form of the PROXY protocol's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

impl ProxyVersion {
    /// Every word, as written in the configuration.
    pub const WORDS: &'static [&'static str] = &["v1", "v2"];

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            _ => None,
        }
    }

    /// The word as written in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}
