//! What tests leave to chance: the same chances in each run, so that a failure comes again.

/// A series of numbers for a thread, or whoever else has one.
pub struct Chances(u64);

impl Chances {
    /// That of the one with this number.
    pub fn new(number: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1))
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "nobody iterates over chances")]
    pub fn next(&mut self) -> u64 {
        // xorshift
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
