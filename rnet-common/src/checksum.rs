//! Ones' complement arithmetic for the Internet checksum (RFC 1071), as differences (RFC 1624).
//!
//! Sums are taken over words as they lie in memory. Ones' complement addition is independent of byte
//! order up to a swap of the result (RFC 1071 §2 B), so a checksum field read as a native word may be
//! adjusted by differences of native words and written back.

/// Folds a sum of 16- or 32-bit words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    // Four 16-bit words, then two rounds of end-around carry: 4 * 0xffff fits 18 bits.
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32 & 0xffff) + (sum >> 48);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The difference that turns a sum of `old` words into one of `new` words: `~old + new` (RFC 1624
/// equation 3), folded to 16 bits.
#[inline(always)]
pub const fn difference(old: u64, new: u64) -> u16 {
    fold(!fold(old) as u64 + fold(new) as u64)
}

/// A checksum field after the data that it covers changed by `difference`.
#[inline(always)]
pub const fn adjust(checksum: u16, difference: u16) -> u16 {
    !fold(!checksum as u64 + difference as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(words: &[u16]) -> u16 {
        !fold(words.iter().map(|w| u64::from(*w)).sum())
    }

    proptest! {
        /// A checksum adjusted for the words that changed equals one computed anew. Both zeroes of ones'
        /// complement are the same number: a sum that is not all zero words never yields 0xffff.
        #[test]
        fn adjusting_equals_recomputing(
            mut words in prop::collection::vec(any::<u16>(), 2..64), at in any::<prop::sample::Index>(), new: u16,
        ) {
            prop_assume!(words.iter().any(|w| *w != 0));
            let before = full(&words);
            let at = at.index(words.len());
            let old = std::mem::replace(&mut words[at], new);
            prop_assume!(words.iter().any(|w| *w != 0));
            prop_assert_eq!(adjust(before, difference(u64::from(old), u64::from(new))), full(&words));
        }

        #[test]
        fn several_words_change_in_one_difference(old: [u32; 4], new: [u32; 4], rest in 1u16..) {
            let words = |a: [u32; 4]| {
                let mut w: Vec<u16> = a.iter().flat_map(|x| [*x as u16, (*x >> 16) as u16]).collect();
                w.push(rest);
                w
            };
            let sum = |a: [u32; 4]| a.iter().map(|x| u64::from(*x)).sum::<u64>();
            prop_assert_eq!(adjust(full(&words(old)), difference(sum(old), sum(new))), full(&words(new)));
        }

        #[test]
        fn fold_is_congruent_modulo_0xffff(sum: u64) {
            prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
        }
    }
}
