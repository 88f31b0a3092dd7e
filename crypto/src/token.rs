//! The join token: `SWMTKN-1-<CA digest>-<secret>`.

use std::{fmt, str::FromStr};

use covey_wire::Id;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

const PREFIX: &str = "SWMTKN-1-";
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Characters of a digest: 36^50 is the first power of 36 above 2^256.
const DIGEST_LENGTH: usize = 50;

/// What a machine needs to join: which authority to trust, and a secret that the managers know.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct JoinToken {
    ca_digest: [u8; 32],
    secret: [u8; 16],
}

impl JoinToken {
    /// A token for the authority with this digest, with 16 random bytes that the caller brings.
    pub const fn new(ca_digest: [u8; 32], secret: [u8; 16]) -> Self {
        Self { ca_digest, secret }
    }

    /// SHA-256 of the authority's certificate.
    pub const fn ca_digest(&self) -> &[u8; 32] {
        &self.ca_digest
    }

    /// Whether both tokens are the same, found out in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        (self.ca_digest.ct_eq(&other.ca_digest) & self.secret.ct_eq(&other.secret)).into()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = Id::new(u128::from_be_bytes(self.secret));
        write!(f, "{PREFIX}{}-{secret}", to_base36(self.ca_digest))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", to_base36(self.ca_digest))
    }
}

/// The text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid join token: it has the form SWMTKN-1-<50 characters>-<25 characters>, see `swarm join-token`"
)]
pub struct ParseTokenError;

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let (digest, secret) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(ParseTokenError)?;
        let secret: Id = secret.parse().map_err(|_| ParseTokenError)?;
        Ok(Self {
            ca_digest: from_base36(digest).ok_or(ParseTokenError)?,
            secret: secret.bits().to_be_bytes(),
        })
    }
}

/// Writes 256 bits as 50 base-36 digits.
fn to_base36(mut number: [u8; 32]) -> String {
    let mut text = [b'0'; DIGEST_LENGTH];
    for digit in text.iter_mut().rev() {
        let mut rest = 0_u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            *byte = (value / 36) as u8;
            rest = value % 36;
        }
        *digit = DIGITS[usize::from(rest)];
    }
    text.iter().map(|digit| char::from(*digit)).collect()
}

/// Reads 50 base-36 digits; none where they are other characters or more than 256 bits.
fn from_base36(text: &str) -> Option<[u8; 32]> {
    if text.len() != DIGEST_LENGTH {
        return None;
    }
    let mut number = [0_u8; 32];
    for character in text.bytes() {
        let mut carry = DIGITS.iter().position(|digit| *digit == character)?;
        for byte in number.iter_mut().rev() {
            let value = usize::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(std::array::from_fn(|at| at as u8), [0xfe; 16])
    }

    /// PKI-05
    #[test]
    fn a_token_has_docker_swarms_form_and_reads_back() {
        for token in [token(), JoinToken::new([0; 32], [0; 16]), JoinToken::new([0xff; 32], [0xff; 16])] {
            let text = token.to_string();
            let parts: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(parts, [6, 1, 50, 25]);
            assert!(text.parse::<JoinToken>().unwrap().matches(&token));
        }
        let one = JoinToken::new(std::array::from_fn(|at| u8::from(at == 31) * 37), [0; 16]).to_string();
        assert_eq!(&one[9..59], format!("{:0>50}", "11"));
    }

    /// PKI-05
    #[test]
    fn other_texts_are_refused() {
        let text = token().to_string();
        let beyond = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        for wrong in
            ["", "SWMTKN-1-", &text[1..], &text[..84], &format!("{text}0"), &text.to_uppercase(), &beyond]
        {
            assert_eq!(wrong.parse::<JoinToken>().unwrap_err(), ParseTokenError, "{wrong}");
        }
    }

    /// PKI-05
    #[test]
    fn tokens_that_differ_in_one_bit_do_not_match() {
        assert!(token().matches(&token()));
        for bit in 0..128 {
            let secret = u128::from_be_bytes([0xfe; 16]) ^ (1 << bit);
            assert!(!token().matches(&JoinToken::new(*token().ca_digest(), secret.to_be_bytes())));
        }
        assert!(!token().matches(&JoinToken::new([0; 32], [0xfe; 16])));
    }

    #[test]
    fn a_log_line_does_not_show_the_secret() {
        let shown = format!("{:?}", token());
        assert!(shown.ends_with("-…"));
        assert!(!shown.contains(&token().to_string()[60..]));
    }
}
