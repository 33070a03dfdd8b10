use crate::BLOCK;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// One block at an address that O_DIRECT takes on every device.
#[derive(Clone, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; BLOCK as usize]);

/// A buffer of whole blocks, aligned for O_DIRECT, all zeros when new.
#[derive(Clone)]
pub struct AlignedBuf {
    pages: Vec<Page>,
}

impl AlignedBuf {
    /// A zeroed buffer of at least `length` bytes, rounded up to whole blocks. The pages are
    /// not touched before they are used, so an unused tail costs no memory.
    pub fn zeroed(length: usize) -> Self {
        let pages = length.div_ceil(BLOCK as usize);
        Self {
            pages: Page::new_vec_zeroed(pages).unwrap_or_else(|_| vec![Page::new_zeroed(); pages]),
        }
    }

    /// A copy of `data`, zero padded to whole blocks.
    pub fn copy_of(data: &[u8]) -> Self {
        let mut buffer = Self::zeroed(data.len());
        buffer[..data.len()].copy_from_slice(data);
        buffer
    }

    /// Whether O_DIRECT takes this memory as it is.
    pub fn fits(data: &[u8]) -> bool {
        data.as_ptr().addr().is_multiple_of(BLOCK as usize)
            && data.len().is_multiple_of(BLOCK as usize)
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.pages.as_bytes()
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes()
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} blocks)", self.pages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_aligned_and_padded_with_zeros() {
        let buffer = AlignedBuf::copy_of(&[7u8; 5000]);
        assert_eq!(buffer.len(), 8192);
        assert!(AlignedBuf::fits(&buffer));
        assert!(buffer[..5000].iter().all(|b| *b == 7) && buffer[5000..].iter().all(|b| *b == 0));
    }
}
