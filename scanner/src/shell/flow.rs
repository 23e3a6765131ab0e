//! What comes out of a command.

use crate::action::{HOLE, Input, Provenance, Text};
use crate::limits;
use crate::source::Place;

/// Data on its way through a pipe or a substitution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Known text, with holes; `None` when nothing is known about it.
    pub(crate) text: Option<Text>,
    pub(crate) provenance: Provenance,
    /// Where the text stands in the file, when it is a piece of it.
    pub(crate) place: Option<Place>,
}

impl Flow {
    pub(crate) fn empty() -> Self {
        Self::text("")
    }

    pub(crate) fn unknown() -> Self {
        Self::default()
    }

    pub(crate) fn text(text: impl Into<Text>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    pub(crate) fn with(mut self, provenance: Provenance) -> Self {
        self.provenance = self.provenance.and(provenance);
        self
    }

    /// Appends what comes later on the same channel.
    pub(crate) fn append(&mut self, later: Flow) {
        let unknown = HOLE.to_string();
        if self.text.as_deref() == Some("") {
            self.place = later.place;
        } else if later.text.as_deref() != Some("") {
            self.place = None;
        }
        self.provenance = self.provenance.and(later.provenance);
        self.text = match (self.text.take(), later.text) {
            (None, None) => None,
            (first, second) => {
                let mut text = first.unwrap_or_else(|| Text::from(unknown.as_str()));
                // The rest is unknown, which rules do not take for harmless.
                let second = second.filter(|second| text.len() + second.len() <= limits::WORD_BYTES);
                text.push_str(second.as_deref().unwrap_or(&unknown));
                Some(text)
            }
        };
    }

    pub(crate) fn into_input(self) -> Input {
        Input { text: self.text, provenance: self.provenance }
    }
}
