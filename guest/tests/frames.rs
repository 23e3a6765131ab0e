//! Frames: what goes in comes out, and nothing hostile gets further than its length.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::{self, Read};

use guest::frame::{Frame, FrameError, MAX_BODY};
use proptest::prelude::*;

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn frames_come_back_one_by_one(
        frames in prop::collection::vec((any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..6)
    ) {
        let frames: Vec<Frame> = frames.into_iter().map(|(kind, id, body)| Frame { kind, id, body }).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
        let mut from = bytes.as_slice();
        for frame in frames {
            prop_assert_eq!(Frame::read(&mut from).unwrap(), frame);
        }
        prop_assert!(from.is_empty());
    }

    #[test]
    fn every_prefix_of_a_frame_is_an_end_and_no_frame(
        body in prop::collection::vec(any::<u8>(), 0..100), cut in any::<prop::sample::Index>()
    ) {
        let bytes = encoded(&Frame { kind: 1, id: 2, body });
        let prefix = &bytes[..cut.index(bytes.len())];
        let error = Frame::read(&mut &prefix[..]).unwrap_err();
        prop_assert!(matches!(error, FrameError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn any_bytes_are_read_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(frame) = Frame::read(&mut bytes.as_slice()) {
            prop_assert!(frame.body.len() <= bytes.len());
        }
    }
}

/// Gives its bytes in pieces of these lengths (the last one for ever), with an interruption before each.
struct Pieces<'a> {
    rest: &'a [u8],
    lengths: &'a [usize],
    interrupted: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (length, later) = self.lengths.split_first().unwrap();
        if !later.is_empty() {
            self.lengths = later;
        }
        let count = buffer.len().min(self.rest.len()).min(*length);
        let (now, rest) = self.rest.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.rest = rest;
        Ok(count)
    }
}

/// Every frame up to the first error, and what that is.
fn frames_of(from: &mut impl Read) -> (Vec<Frame>, String) {
    let mut frames = Vec::new();
    loop {
        match Frame::read(from) {
            Ok(frame) => frames.push(frame),
            Err(error) => return (frames, error.to_string()),
        }
    }
}

proptest! {
    /// Any bytes in any pieces are read as they are read whole: good frames first, or none.
    #[test]
    fn how_bytes_are_cut_changes_nothing(
        good in prop::collection::vec((any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..3),
        more in prop::collection::vec(any::<u8>(), 0..40),
        lengths in prop::collection::vec(1..20_usize, 1..20),
    ) {
        let good: Vec<Frame> = good.into_iter().map(|(kind, id, body)| Frame { kind, id, body }).collect();
        let bytes: Vec<u8> = good.iter().flat_map(encoded).chain(more).collect();
        let whole = frames_of(&mut bytes.as_slice());
        prop_assert!(whole.0.starts_with(&good));
        let pieces = frames_of(&mut Pieces { rest: &bytes, lengths: &lengths, interrupted: false });
        prop_assert_eq!(pieces, whole);
    }
}

/// Counts what is read of an endless stream.
struct Endless(usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 += buffer.len();
        buffer.fill(0xff);
        Ok(buffer.len())
    }
}

#[test]
fn a_length_beyond_the_limit_costs_nothing() {
    let mut stream = Endless(0);
    assert!(matches!(Frame::read(&mut stream), Err(FrameError::TooLong { .. })));
    assert_eq!(stream.0, 4);
}

#[test]
fn the_longest_body_passes_and_one_byte_more_does_not() {
    let longest = Frame { kind: 1, id: 1, body: vec![0; MAX_BODY] };
    assert_eq!(Frame::read(&mut encoded(&longest).as_slice()).unwrap(), longest);
    let longer = Frame { kind: 1, id: 1, body: vec![0; MAX_BODY + 1] };
    assert!(matches!(longer.write(&mut Vec::new()), Err(FrameError::TooLong { .. })));
    let mut forged = encoded(&longest);
    forged[..4].copy_from_slice(&(MAX_BODY as u32 + 6).to_be_bytes());
    forged.push(0);
    assert!(matches!(Frame::read(&mut forged.as_slice()), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_length_below_the_head_is_refused() {
    for length in 0..5_u32 {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0; 16]);
        assert!(matches!(Frame::read(&mut bytes.as_slice()), Err(FrameError::TooShort { .. })));
    }
}
