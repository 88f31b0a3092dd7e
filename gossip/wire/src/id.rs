//! The id of everything that the cluster remembers: 128 random bits, written as 25 base-36 characters.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Characters of an id: 36^25 is the first power of 36 above 2^128.
const LENGTH: usize = 25;

/// An id, as Docker Swarm writes its own: 25 characters of `0-9a-z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(u128);

impl Id {
    /// The id made of these bits; whoever makes an id brings the randomness.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits of the id.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; LENGTH];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(rest % 36) as usize];
            rest /= 36;
        }
        f.pad(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has {LENGTH} characters of 0-9 and a-z")]
pub struct ParseIdError;

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.len() != LENGTH {
            return Err(ParseIdError);
        }
        text.bytes()
            .try_fold(0_u128, |value, byte| {
                let digit = DIGITS.iter().position(|d| *d == byte)?;
                value.checked_mul(36)?.checked_add(digit as u128)
            })
            .map(Self)
            .ok_or(ParseIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-01
    #[test]
    fn an_id_has_25_characters_and_reads_back() {
        for bits in [0, 1, 35, 36, u128::MAX / 3, u128::MAX] {
            let text = Id::new(bits).to_string();
            assert_eq!(text.len(), 25);
            assert_eq!(text.parse(), Ok(Id::new(bits)));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "abc", "ZZZZZZZZZZZZZZZZZZZZZZZZZ", "zzzzzzzzzzzzzzzzzzzzzzzzz"] {
            assert_eq!(text.parse::<Id>(), Err(ParseIdError));
        }
    }
}
