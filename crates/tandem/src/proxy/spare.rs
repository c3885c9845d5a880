//! Keeps buffers between two uses: one for whoever has bytes on their way, none for who has not.
//! In: buffers. Out: buffers.
//! Costs: what passes bytes on takes and gives one back for nearly every packet. The one used last
//! is used first, so that it is still in the processor's cache.
//! Keeps: at most `SPARE_MAX` per thread. What was in a buffer is forgotten by its length: nobody
//! reads further.
//! Not here: when a buffer is needed (`flow.rs`, `http/stream.rs`).
//! Tested by: below.

use std::cell::RefCell;

/// What is taken; other sizes are the allocator's.
pub(super) const SIZE: usize = 16 * 1024;
/// As many as are busy at once in one thread, in most of its moments.
const SPARE_MAX: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for `SIZE` bytes.
pub(super) fn take() -> Vec<u8> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
    spare.ok().flatten().unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Nobody needs it any more.
pub(super) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() != SIZE {
        return;
    }
    buffer.clear();
    // A thread that ends has none.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_and_empty() {
        let mut buffer = take();
        buffer.extend_from_slice(b"secret");
        let place = buffer.as_ptr();
        give(buffer);
        let buffer = take();
        assert!(buffer.is_empty() && buffer.capacity() == SIZE && buffer.as_ptr() == place);
        give(Vec::with_capacity(10));
        assert_eq!(take().capacity(), SIZE);
    }

    #[test]
    fn no_more_than_a_few_are_kept() {
        (0..SPARE_MAX * 2).for_each(|_| give(Vec::with_capacity(SIZE)));
        assert_eq!(SPARE.with(|spare| spare.borrow().len()), SPARE_MAX);
    }
}
