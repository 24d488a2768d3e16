//! Numbers that stand for topics towards one client (MQTT 5, 3.3.2.3.4). Pure.

use crate::plan;

/// The numbers of one connection: the first topics that its client gets have them until it ends.
#[derive(Debug, Default)]
pub(crate) struct OutgoingAliases {
    most: usize,
    names: Vec<String>,
}

/// How a topic goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicForm {
    Name,
    /// With the number that stands for it from now on.
    NameAnd(u16),
    /// By its number alone.
    Number(u16),
}

impl OutgoingAliases {
    /// For a client that takes so many.
    pub(crate) fn new(most: u16) -> Self {
        OutgoingAliases { most: usize::from(most.min(plan::OUTGOING_ALIASES)), names: Vec::new() }
    }

    pub(super) fn form(&self, topic: &str) -> TopicForm {
        let number = |place: usize| u16::try_from(place + 1).unwrap_or(u16::MAX);
        if let Some(place) = self.names.iter().position(|name| name == topic) {
            return TopicForm::Number(number(place));
        }
        // The property takes three bytes: nothing is won with a shorter name.
        let is_worth_it = topic.len() > 3 && self.names.len() < self.most;
        if is_worth_it { TopicForm::NameAnd(number(self.names.len())) } else { TopicForm::Name }
    }

    /// A packet with that form was written.
    pub(super) fn written(&mut self, topic: &str, form: TopicForm) {
        if matches!(form, TopicForm::NameAnd(_)) {
            self.names.push(topic.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_get_a_number_each_and_keep_it() {
        let mut aliases = OutgoingAliases::new(2);
        let mut go = |topic: &str| {
            let form = aliases.form(topic);
            aliases.written(topic, form);
            form
        };
        assert_eq!(go("line/1"), TopicForm::NameAnd(1));
        assert_eq!(go("t"), TopicForm::Name);
        assert_eq!(go("line/2"), TopicForm::NameAnd(2));
        assert_eq!(go("line/3"), TopicForm::Name);
        assert_eq!([go("line/2"), go("line/1")], [TopicForm::Number(2), TopicForm::Number(1)]);
        assert_eq!(OutgoingAliases::new(0).form("line/1"), TopicForm::Name);
        assert_eq!(OutgoingAliases::new(u16::MAX).most, usize::from(plan::OUTGOING_ALIASES));
    }
}
