//! Writes HTML. What others have said goes through [`Html::text`] alone: [`Html::raw`] takes only what stands in this program. Pure.

/// 320 KiB: from then on rows are left out and counted.
const ROOM: usize = 320 << 10;
/// 600 bytes of one text, whatever its owner has cut it to.
const TEXT_MAX: usize = 600;

/// A document that grows.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Markup of this program's.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// A text of whomever's, for an element's content or an attribute in quotes.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        let end = text.floor_char_boundary(TEXT_MAX);
        for letter in text[..end].chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&#34;"),
                '\'' => self.0.push_str("&#39;"),
                letter if is_unseen(letter) => self.0.push('\u{fffd}'),
                letter => self.0.push(letter),
            }
        }
        if end < text.len() {
            self.0.push('…');
        }
        self
    }

    /// Markup around a text.
    pub(crate) fn around(&mut self, before: &'static str, text: &str, after: &'static str) -> &mut Self {
        self.raw(before).text(text).raw(after)
    }

    /// Whether there is room for more rows.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < ROOM
    }

    /// The document.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// What nobody sees, or what turns the letters beside it round: a name of this kind could pass for another.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut html = Html::default();
        html.text(text);
        html.into_string()
    }

    #[test]
    fn nothing_of_others_is_markup() {
        assert_eq!(
            written(r#"<script>alert('x')</script>" onload="&amp;"#),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34; onload=&#34;&amp;amp;"
        );
        // A name that reads `admin` to a person, and a line that a terminal or a log takes for two.
        assert_eq!(written("nim\u{202e}da\r\n\0\u{200b}"), "nim\u{fffd}da\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(written("größer 漢字 🦀"), "größer 漢字 🦀");
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let long = written(&"é".repeat(10_000));
        assert_eq!(long, "é".repeat(TEXT_MAX / 2) + "…");
        assert!(!written(&"<".repeat(10_000)).contains('<'));
    }
}
