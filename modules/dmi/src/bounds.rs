//! What an edgecore takes of a report, so that a mapper knows it before it sends one.

/// 4 KiB, the largest value of a twin.
pub const VALUE_MAX: usize = 4 << 10;
/// 256 KiB, the largest message of a mapper, also after it was unpacked.
pub const CALL_MAX: usize = 256 << 10;

/// Whether a value of a property is short enough for a twin.
///
/// # Errors
/// Why not, in the words of both ends.
pub fn check_length(property: &str, value: &str) -> Result<(), String> {
    if value.len() <= VALUE_MAX {
        return Ok(());
    }
    Err(format!("a value of `{property}` has more than {VALUE_MAX} bytes"))
}

/// What stands in the place of a value that is not taken, in the words of both ends, so that it is told once.
pub fn untaken(reason: &str) -> String {
    format!("edgecore does not take the value: {reason}")
}
