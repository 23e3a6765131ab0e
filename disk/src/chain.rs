//! A chain of images read as one disk: the caller says which lies on which, the images themselves are not asked.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;

use crate::error::DiskError;
use crate::limits::Limits;
use crate::qcow2::{Cluster, Image};

/// Bytes that are read and kept at once; a file system's metadata is read in small pieces that lie side by side.
const REGION: u64 = 64 * 1024;
/// Regions that are kept, 16 MiB together.
const REGIONS: usize = 256;

/// The disk that a base and the layers on it make.
pub(crate) struct Chain<'a> {
    /// Bottom up; the first is the base.
    images: Vec<&'a Image<'a>>,
    disk_length: u64,
    kept: RefCell<Vec<Option<Region>>>,
}

struct Region {
    index: u64,
    bytes: Box<[u8]>,
}

/// Opens the base and all layers.
pub(crate) fn open<'a>(
    base: &'a File,
    sealed: &'a [File],
    limits: &Limits,
) -> Result<Vec<Image<'a>>, DiskError> {
    if sealed.len() > limits.layers {
        return Err(DiskError::Limit { what: "layers", allowed: limits.layers as u64 });
    }
    let mut images = vec![Image::open(base, "the base".to_owned(), limits)?];
    for (file, number) in sealed.iter().zip(1..) {
        let image = Image::open(file, format!("layer {number}"), limits)?;
        if image.disk_length() != images[0].disk_length() {
            return Err(DiskError::Image {
                image: image.name().to_owned(),
                reason: format!(
                    "its disk has {} bytes, that of the base has {}",
                    image.disk_length(),
                    images[0].disk_length()
                ),
            });
        }
        images.push(image);
    }
    Ok(images)
}

impl<'a> Chain<'a> {
    /// The disk of these images, bottom up, which all have the same length.
    pub(crate) fn new(images: &'a [Image<'a>]) -> Self {
        Chain {
            images: images.iter().collect(),
            disk_length: images.first().map_or(0, Image::disk_length),
            kept: RefCell::new(std::iter::repeat_with(|| None).take(REGIONS).collect()),
        }
    }

    /// Length of the disk in bytes.
    pub(crate) fn disk_length(&self) -> u64 {
        self.disk_length
    }

    /// Whether any layer above the base holds a part of these bytes, be it with the same content.
    pub(crate) fn layers_hold(&self, bytes: Range<u64>) -> bool {
        self.images.iter().skip(1).any(|image| {
            let mut at = bytes.start;
            while at < bytes.end {
                if image.locate(at) != Cluster::Below {
                    return true;
                }
                at += image.to_cluster_end(at);
            }
            false
        })
    }

    /// Reads bytes that are not likely to be read again: the content of files.
    ///
    /// The caller asks for bytes of the disk only; what lies behind its end would be zeros.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut length = rest.len() as u64;
            let mut found = None;
            for image in self.images.iter().rev() {
                length = length.min(image.to_cluster_end(at));
                match image.locate(at) {
                    Cluster::Below => {}
                    Cluster::Zeros => break,
                    Cluster::At(place) => {
                        found = Some((image, place));
                        break;
                    }
                }
            }
            let (now, later) = rest.split_at_mut(length as usize);
            match found {
                Some((image, place)) => image.read(place, now)?,
                None => now.fill(0),
            }
            at += length;
            rest = later;
        }
        Ok(())
    }

    /// Reads a small piece of metadata, and keeps its neighbourhood.
    pub(crate) fn read_kept(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let mut kept = self.kept.borrow_mut();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let index = at / REGION;
            let slot = &mut kept[(index % REGIONS as u64) as usize];
            if slot.as_ref().is_none_or(|region| region.index != index) {
                let mut fresh = vec![0; REGION as usize].into_boxed_slice();
                self.read(index * REGION, &mut fresh)?;
                *slot = Some(Region { index, bytes: fresh });
            }
            if let Some(region) = slot {
                let from = &region.bytes[(at % REGION) as usize..];
                let length = from.len().min(bytes.len() - done);
                bytes[done..done + length].copy_from_slice(&from[..length]);
                done += length;
            }
        }
        Ok(())
    }
}
