//! CloudRouter's word about one upload, as CloudCore's log shows it. Pure.

/// The target of these lines.
pub(crate) const TARGET: &str = "cloud_router::upload";

/// An upload that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) client: String,
    pub(super) topic: String,
    pub(super) boot: String,
    pub(super) sequence: u64,
    /// The node says that it may have sent it before.
    pub(super) repeat: bool,
    /// The client does.
    pub(super) dup: bool,
    pub(super) payload: String,
}

/// None when the line is about something else. Names and payloads of the soak have no spaces and no quotes.
pub(super) fn parse(line: &str) -> Option<Upload> {
    let (_, fields) = line.split_once(TARGET)?;
    let of = |name: &str| {
        let pairs = fields.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.clone().find(|(field, _)| *field == name).map(|(_, value)| value.trim_matches('"').to_owned())
    };
    Some(Upload {
        client: of("client")?,
        topic: of("topic")?,
        boot: of("boot")?,
        sequence: of("sequence")?.parse().ok()?,
        repeat: of("repeat")?.parse().ok()?,
        dup: of("dup")?.parse().ok()?,
        payload: of("payload")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_others_are_not() {
        let line = "2026-11-21T11:00:00.000001Z DEBUG cloud_router::upload: upload arrived node=edge-1 client=\"a\" \
                    topic=\"$hw/events/upload/a\" boot=0a0b sequence=7 repeat=true dup=false bytes=2 payload=\"17\"";
        let upload = Upload {
            client: "a".to_owned(),
            topic: "$hw/events/upload/a".to_owned(),
            boot: "0a0b".to_owned(),
            sequence: 7,
            repeat: true,
            dup: false,
            payload: "17".to_owned(),
        };
        assert_eq!(parse(line), Some(upload));
        assert_eq!(
            parse("2026-11-21T11:00:00.000001Z  INFO cloud_hub::sessions: node linked node=edge-1"),
            None
        );
        // The rest of it was not written.
        assert_eq!(parse(line.split_once(" dup").unwrap().0), None);
    }
}
