//! What a camera says by itself: messages with a topic, what they are of, and their data (Core §9.4, §9.5). Pure.

use std::collections::BTreeMap;

use crate::soap::short;
use crate::xml::Element;

/// 32 steps of a topic.
const STEPS_MAX: usize = 32;

/// 16 names of data are told.
const NAMES_MAX: usize = 16;

/// Which messages are meant, and what of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Without prefixes: which ones stand for ONVIF's own is another matter at each camera.
    steps: Vec<String>,
    /// Which of its data. None: the only one.
    item: Option<String>,
    /// What it is of has to have these values.
    source: BTreeMap<String, String>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    steps: Vec<String>,
    is_deleted: bool,
    source: Vec<(String, String)>,
    data: Vec<(String, String)>,
}

/// What a message says of what is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Value(&'a str),
    /// It is no more.
    Deleted,
    /// It does not say it, for this reason.
    Nothing(String),
}

impl Topic {
    /// None: it is no topic.
    pub(crate) fn new(topic: &str, item: Option<String>, source: BTreeMap<String, String>) -> Option<Self> {
        let steps = steps(topic);
        (!steps.is_empty() && steps.len() <= STEPS_MAX && steps.iter().all(|step| !step.is_empty()))
            .then_some(Topic { steps, item, source })
    }

    /// What a message says of it. None: it is of something else.
    pub(crate) fn of<'a>(&self, message: &'a Message) -> Option<Said<'a>> {
        let has = |(name, value): (&String, &String)| {
            message.source.iter().any(|(of, is)| of == name && is == value)
        };
        if self.steps != message.steps || !self.source.iter().all(has) {
            return None;
        }
        if message.is_deleted {
            return Some(Said::Deleted);
        }
        let names = || {
            let names = message.data.iter().take(NAMES_MAX).map(|(name, _)| short(name));
            names.collect::<Vec<_>>().join(", ")
        };
        Some(match (&self.item, message.data.as_slice()) {
            (None, [(_, value)]) => Said::Value(value),
            (None, []) => Said::Nothing("its message has no data".to_owned()),
            (None, _) => Said::Nothing(format!("its message has several data; write `item`: {}", names())),
            (Some(item), data) => match data.iter().find(|(name, _)| name == item) {
                Some((_, value)) => Said::Value(value),
                None => Said::Nothing(format!("its message has no `{item}`; there are {}", names())),
            },
        })
    }
}

/// The messages in an answer to `PullMessages`, the oldest first.
pub(crate) fn messages(answer: &Element) -> Vec<Message> {
    answer.all("NotificationMessage").filter_map(message).collect()
}

fn message(notification: &Element) -> Option<Message> {
    let steps = steps(notification.text_at("Topic")?);
    let inside = notification.at("Message/Message")?;
    let items = |name: &str| -> Vec<(String, String)> {
        let simple = inside.all(name).flat_map(|part| part.all("SimpleItem"));
        simple
            .filter_map(|item| {
                Some((item.attribute("Name")?.to_owned(), item.attribute("Value")?.trim().to_owned()))
            })
            .collect()
    };
    let is_deleted = inside.attribute("PropertyOperation") == Some("Deleted");
    let source = [items("Source"), items("Key")].concat();
    Some(Message { steps, is_deleted, source, data: items("Data") })
}

fn steps(topic: &str) -> Vec<String> {
    let topic = topic.trim().trim_end_matches("/.").trim_matches('/');
    if topic.is_empty() {
        return Vec::new();
    }
    // One more than there may be, so that a longer one is no other's.
    let steps = topic.split('/').take(STEPS_MAX + 1);
    steps.map(|step| step.rsplit(':').next().unwrap_or(step).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    const PULLED: &str = "<t:PullMessagesResponse xmlns:t='t' xmlns:w='w' xmlns:o='o' xmlns:x='x'>\
        <w:NotificationMessage><w:Topic Dialect='d'> tns1:RuleEngine/CellMotionDetector/Motion </w:Topic><w:Message>\
        <o:Message UtcTime='2026-11-30T10:00:00Z' PropertyOperation='Changed'>\
        <o:Source><o:SimpleItem Name='VideoSourceConfigurationToken' Value='1'/><o:SimpleItem Name='Rule' Value='r'/></o:Source>\
        <o:Key><o:SimpleItem Name='Id' Value='7'/></o:Key>\
        <o:Data><o:SimpleItem Name='IsMotion' Value=' true'/><o:ElementItem Name='x'/></o:Data></o:Message></w:Message></w:NotificationMessage>\
        <w:NotificationMessage><w:Topic>tns1:Device/x:Relay</w:Topic><w:Message><o:Message PropertyOperation='Deleted'/></w:Message></w:NotificationMessage>\
        <w:NotificationMessage><w:Topic>a/b</w:Topic><w:Message><o:Message><o:Data><o:SimpleItem Name='p' Value='1'/><o:SimpleItem Name='q' Value='2'/></o:Data></o:Message></w:Message></w:NotificationMessage>\
        <w:NotificationMessage><w:Topic>a/b</w:Topic></w:NotificationMessage><w:NotificationMessage/></t:PullMessagesResponse>";

    fn topic(topic: &str, item: Option<&str>, source: &[(&str, &str)]) -> Topic {
        let source = source.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Topic::new(topic, item.map(str::to_owned), source).unwrap()
    }

    #[test]
    fn a_message_is_found_by_its_topic_and_what_it_is_of() {
        let pulled = messages(&parse(PULLED.as_bytes()).unwrap());
        assert_eq!(pulled.len(), 3);
        let (motion, relay, two) = (&pulled[0], &pulled[1], &pulled[2]);
        let named = "RuleEngine/CellMotionDetector/Motion";
        for meant in [
            topic(named, None, &[]),
            topic(
                "tns1:RuleEngine/tns1:CellMotionDetector/Motion",
                Some("IsMotion"),
                &[("Rule", "r"), ("Id", "7")],
            ),
        ] {
            assert_eq!(meant.of(motion), Some(Said::Value("true")));
            assert_eq!(meant.of(relay), None);
        }
        assert_eq!(topic(named, None, &[("Rule", "other")]).of(motion), None);
        assert_eq!(topic("Device/Relay", None, &[]).of(relay), Some(Said::Deleted));
        assert_eq!(topic("a/b", Some("q"), &[]).of(two), Some(Said::Value("2")));
        let Some(Said::Nothing(said)) = topic("a/b", None, &[]).of(two) else { panic!() };
        assert!(said.contains("`item`: p, q"), "{said}");
        let Some(Said::Nothing(said)) = topic("a/b", Some("r"), &[]).of(two) else { panic!() };
        assert!(said.contains("no `r`; there are p, q"), "{said}");
    }

    #[test]
    fn what_a_message_names_is_told_in_few_words() {
        let items: String =
            (0..5000).map(|at| format!("<SimpleItem Name='{at}{}' Value=''/>", "x".repeat(90))).collect();
        let pulled = format!(
            "<r><NotificationMessage><Topic>a</Topic><Message><Message><Data>{items}</Data></Message></Message></NotificationMessage></r>"
        );
        let pulled = messages(&parse(pulled.as_bytes()).unwrap());
        for item in [None, Some("y")] {
            let Some(Said::Nothing(said)) = topic("a", item, &[]).of(&pulled[0]) else { panic!() };
            assert!(said.len() < 4096, "{} bytes", said.len());
        }
    }

    #[test]
    fn what_is_no_topic_is_none() {
        let long = "a/".repeat(STEPS_MAX + 1);
        assert_eq!(steps(&"a/".repeat(10_000)).len(), STEPS_MAX + 1);
        for none in ["", "/", "a//b", "a/tns1:", long.as_str()] {
            assert_eq!(Topic::new(none, None, BTreeMap::new()), None, "{none}");
        }
    }
}
