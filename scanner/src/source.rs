//! A text with its places. Offsets are bytes of the file as it was given.

use std::borrow::Cow;
use std::ops::Range;

/// One file's text, of the same length in bytes as the file: a byte that is not UTF-8 becomes `?`, so that every
/// offset stays true.
pub(crate) struct Source<'a> {
    text: Cow<'a, str>,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let text = readable(bytes);
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { text, line_starts }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub(crate) fn line_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1) - 1;
        let start = self.line_starts[line];
        let before = self.text.get(start..offset).map_or(0, |text| text.chars().count());
        (line + 1, before + 1)
    }

    /// The span cut down to whole characters inside the text, and to its first line.
    pub(crate) fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let floor = |mut index: usize| {
            index = index.min(self.text.len());
            while !self.text.is_char_boundary(index) {
                index -= 1;
            }
            index
        };
        let start = floor(span.start);
        let end = floor(span.end).max(start);
        let next = self.line_starts.partition_point(|line| *line <= start);
        let line_end = self.line_starts.get(next).map_or(self.text.len(), |line| line - 1);
        start..end.min(line_end)
    }
}

/// The bytes as text of the same length; NUL stays out too, because it stands for "unknown" in the words we build.
pub(crate) fn readable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Cow::Borrowed(text),
        _ => {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text.extend(chunk.valid().chars().map(|c| if c == '\0' { '?' } else { c }));
                text.extend(chunk.invalid().iter().map(|_| '?'));
            }
            Cow::Owned(text)
        }
    }
}

/// Where the offsets of a text lie in the file.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The text is a piece of the file, from this offset.
    Exact(usize),
    /// The text was computed (decoded, joined, unquoted); all of it points here.
    Whole(Range<usize>),
}

impl Place {
    pub(crate) fn span(&self, inner: Range<usize>) -> Range<usize> {
        match self {
            Self::Exact(base) => base + inner.start..base + inner.end,
            Self::Whole(span) => span.clone(),
        }
    }

    /// The place of a text found in `raw`, which lies at `inner` of this place.
    pub(crate) fn of(&self, raw: &str, inner: &Range<usize>, text: &str) -> Self {
        match (self, raw.find(text)) {
            (Self::Exact(base), Some(at)) if !text.is_empty() => Self::Exact(base + inner.start + at),
            _ => Self::Whole(self.span(inner.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_columns_count_characters() {
        let source = Source::new("é b\nxy\n".as_bytes());
        assert_eq!(source.line_column(0), (1, 1));
        assert_eq!(source.line_column(3), (1, 3));
        assert_eq!(source.line_column(5), (2, 1));
        assert_eq!(source.line_column(8), (3, 1));
        assert_eq!(source.line_column(800), (3, 1));
    }

    #[test]
    fn bytes_that_are_not_text_keep_their_length() {
        let bytes = b"a\xff\xfe\0b\xc3\xa9";
        assert_eq!(readable(bytes), "a???bé");
        assert_eq!(readable(bytes).len(), bytes.len());
    }

    #[test]
    fn a_span_is_cut_to_whole_characters_of_one_line() {
        let source = Source::new("é\nb".as_bytes());
        assert_eq!(source.clamp(1..4), 0..2);
        assert_eq!(source.clamp(9..12), 4..4);
    }
}
