//! XML of cameras, read into a tree that is bounded while it is built. Pure.
//!
//! There are no entities but XML's own five, and a document type is refused: nothing grows by being read.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};

use crate::charset::decoded;

/// 20,000 elements: a camera with 64 profiles has a fifth of that.
const ELEMENTS_MAX: usize = 20_000;
/// 64 deep.
const DEPTH_MAX: usize = 64;
/// 64 attributes of one element.
const ATTRIBUTES_MAX: usize = 64;
/// 1 KiB of a namespace: those of ONVIF have less than 100 bytes.
const NAMESPACE_MAX: usize = 1 << 10;
/// 8 MiB of all that is kept of a document; of an answer of 512 KiB from a real camera it is half of that at most.
const KEPT_MAX: usize = 8 << 20;

/// An element with all that is in it. Names are without their prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// Empty: none.
    pub(crate) namespace: Arc<str>,
    pub(crate) name: String,
    /// Namespace, name and value; without the declarations of namespaces.
    pub(crate) attributes: Vec<(Arc<str>, String, String)>,
    /// The text that is in it itself.
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// The root element of a document.
///
/// # Errors
/// A sentence, when it is none, or more than is read.
pub(crate) fn parse(document: &[u8]) -> Result<Element, String> {
    let text = decoded(document);
    let mut reader = NsReader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let (mut open, mut root): (Vec<Element>, Option<Element>) = (Vec::new(), None);
    let (mut elements, mut kept) = (0_usize, Kept::default());
    loop {
        let (resolved, event) = reader.read_resolved_event().map_err(|error| error.to_string())?;
        match event {
            Event::Start(start) => {
                elements += 1;
                if elements > ELEMENTS_MAX || open.len() >= DEPTH_MAX {
                    return Err(format!(
                        "it has more than {ELEMENTS_MAX} elements, or is more than {DEPTH_MAX} deep"
                    ));
                }
                let namespace = kept.namespace(&resolved)?;
                open.push(begun(&reader, namespace, &start, &mut kept)?);
            }
            Event::End(_) => {
                let Some(done) = open.pop() else { return Err("an element ends twice".to_owned()) };
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None if root.is_none() => root = Some(done),
                    None => return Err("it has two roots".to_owned()),
                }
            }
            Event::Text(part) => add(&mut open, &part.xml10_content(), &mut kept)?,
            Event::CData(part) => add(&mut open, &part.into_inner(), &mut kept)?,
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(letter)) => add(&mut open, letter.encode_utf8(&mut [0; 4]), &mut kept)?,
                Ok(None) => add(&mut open, own_entity(&reference.into_inner())?, &mut kept)?,
                Err(error) => return Err(error.to_string()),
            },
            Event::DocType(_) => return Err("it has a document type, which is not read".to_owned()),
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => {}
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        _ => Err("it has no end".to_owned()),
    }
}

fn begun(
    reader: &NsReader<&[u8]>,
    namespace: Arc<str>,
    start: &BytesStart<'_>,
    kept: &mut Kept,
) -> Result<Element, String> {
    let name = start.local_name().as_ref().to_owned();
    kept.count(size_of::<Element>() + name.len())?;
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        if attributes.len() >= ATTRIBUTES_MAX {
            return Err(format!("an element has more than {ATTRIBUTES_MAX} attributes"));
        }
        let (resolved, name) = reader.resolver().resolve_attribute(attribute.key);
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        kept.count(size_of::<(Arc<str>, String, String)>() + name.as_ref().len() + value.len())?;
        attributes.push((kept.namespace(&resolved)?, name.as_ref().to_owned(), value.into_owned()));
    }
    Ok(Element { namespace, name, attributes, ..Element::default() })
}

/// What is kept of a document. A prefix of a letter may stand for a long namespace at each of thousands of names: that is kept once.
#[derive(Default)]
struct Kept {
    namespaces: HashSet<Arc<str>>,
    bytes: usize,
}

impl Kept {
    /// So many bytes more.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > KEPT_MAX {
            return Err(format!("it would take more than {} MiB", KEPT_MAX >> 20));
        }
        Ok(())
    }

    fn namespace(&mut self, resolved: &ResolveResult<'_>) -> Result<Arc<str>, String> {
        let name = match resolved {
            ResolveResult::Bound(namespace) => namespace.0,
            ResolveResult::Unbound => "",
            // Some cameras do not declare what they write: names are known without.
            ResolveResult::Unknown(_) => "",
        };
        // Before it is looked for: that reads all of it, for each name.
        if name.len() > NAMESPACE_MAX {
            return Err(format!("a namespace has more than {NAMESPACE_MAX} bytes"));
        }
        if let Some(known) = self.namespaces.get(name) {
            return Ok(Arc::clone(known));
        }
        self.count(size_of::<Arc<str>>() + name.len())?;
        let fresh = Arc::<str>::from(name);
        self.namespaces.insert(Arc::clone(&fresh));
        Ok(fresh)
    }
}

fn add(open: &mut [Element], text: &str, kept: &mut Kept) -> Result<(), String> {
    let Some(element) = open.last_mut() else { return Ok(()) };
    kept.count(text.len())?;
    element.text.push_str(text);
    Ok(())
}

fn own_entity(name: &str) -> Result<&'static str, String> {
    match name {
        "lt" => Ok("<"),
        "gt" => Ok(">"),
        "amp" => Ok("&"),
        "apos" => Ok("'"),
        "quot" => Ok("\""),
        _ => Err("it has an entity, which is not read".to_owned()),
    }
}

impl Element {
    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// What is there, by the names on the way: `A/B`.
    pub(crate) fn at(&self, path: &str) -> Option<&Element> {
        path.split('/').try_fold(self, |at, name| at.child(name))
    }

    /// Its text, or that at a path, without blanks around it. None: it is not there, or empty.
    pub(crate) fn text_at(&self, path: &str) -> Option<&str> {
        let found = if path.is_empty() { Some(self) } else { self.at(path) };
        found.map(|element| element.text.trim()).filter(|text| !text.is_empty())
    }

    /// An attribute's value.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(_, of, _)| of == name).map(|(.., value)| value.as_str())
    }

    /// The whole as it may stand in another document.
    fn write(&self, xml: &mut impl Write) -> fmt::Result {
        write!(xml, "<n:{} xmlns:n=\"", self.name)?;
        put(xml, &self.namespace)?;
        xml.write_char('"')?;
        for (at, (namespace, name, value)) in self.attributes.iter().enumerate() {
            if namespace.is_empty() {
                write!(xml, " {name}=\"")?;
            } else {
                write!(xml, " xmlns:a{at}=\"")?;
                put(xml, namespace)?;
                write!(xml, "\" a{at}:{name}=\"")?;
            }
            put(xml, value)?;
            xml.write_char('"')?;
        }
        xml.write_char('>')?;
        put(xml, &self.text)?;
        self.children.iter().try_for_each(|child| child.write(xml))?;
        write!(xml, "</n:{}>", self.name)
    }
}

/// These one after the other, as they may stand in another document. Each says its namespace anew, so that this may be much longer than
/// what they were read from. None: more than `most` bytes, of which no more than these were written.
pub(crate) fn to_xml(elements: &[Element], most: usize) -> Option<String> {
    let mut xml = Bounded { xml: String::new(), most };
    elements.iter().try_for_each(|element| element.write(&mut xml)).ok()?;
    Some(xml.xml)
}

/// A text that takes no more than so many bytes.
struct Bounded {
    xml: String,
    most: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if part.len() > self.most.saturating_sub(self.xml.len()) {
            return Err(fmt::Error);
        }
        self.xml.push_str(part);
        Ok(())
    }
}

/// Whether XML can have this letter at all (XML 1.0 §2.2).
pub(crate) fn is_letter(letter: char) -> bool {
    matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// A text as it stands in an element or an attribute. What XML cannot have is a mark in its place.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(|letter| matches!(letter, '&' | '<' | '>' | '"' | '\'') || !is_letter(letter)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    // Writing into a text does not fail.
    let _ = put(&mut escaped, text);
    Cow::Owned(escaped)
}

/// The same, written letter by letter: nothing is made of what has no room.
fn put(xml: &mut impl Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|letter| match letter {
        '&' => xml.write_str("&amp;"),
        '<' => xml.write_str("&lt;"),
        '>' => xml.write_str("&gt;"),
        '"' => xml.write_str("&quot;"),
        '\'' => xml.write_str("&apos;"),
        letter if is_letter(letter) => xml.write_char(letter),
        _ => xml.write_char('\u{FFFD}'),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_in_a_document_is_found_by_its_names() {
        let read = parse(
            b"\xEF\xBB\xBF<?xml version=\"1.0\"?><!-- x --><a:r xmlns:a=\"urn:a\" xmlns=\"urn:d\"><b k='1 &amp; 2' a:k='3'>\
              x<![CDATA[<&>]]>&lt;&#65;&#x42; </b><c/><b>2</b></a:r>",
        );
        let read = read.unwrap();
        assert_eq!((&*read.namespace, read.name.as_str()), ("urn:a", "r"));
        assert_eq!(&*read.children[0].namespace, "urn:d");
        assert_eq!(read.text_at("b"), Some("x<&><AB"));
        assert_eq!(read.child("b").unwrap().attribute("k"), Some("1 & 2"));
        assert_eq!((read.text_at("c"), read.all("b").count(), read.at("b/c")), (None, 2, None));
        let written = to_xml(std::slice::from_ref(&read), 1 << 10).unwrap();
        assert_eq!(parse(written.as_bytes()).unwrap(), read, "{written}");
        assert_eq!(to_xml(std::slice::from_ref(&read), written.len()).as_ref(), Some(&written));
        assert_eq!(to_xml(std::slice::from_ref(&read), written.len() - 1), None);
    }

    #[test]
    fn what_would_grow_or_goes_too_far_is_refused() {
        let deep = |count: usize| format!("{}{}", "<a>".repeat(count), "</a>".repeat(count));
        assert!(parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        let many = format!("<r>{}</r>", "<a/>".repeat(ELEMENTS_MAX));
        let attributes: String = (0..=ATTRIBUTES_MAX).map(|at| format!(" a{at}='1'")).collect();
        for (document, said) in [
            ("<!DOCTYPE r [<!ENTITY a \"aaaa\">]><r>&a;</r>".to_owned(), "document type"),
            ("<r>&a;</r>".to_owned(), "entity"),
            ("<r k='&a;'/>".to_owned(), "a"),
            (deep(DEPTH_MAX + 1), "deep"),
            (many, "elements"),
            (format!("<r{attributes}/>"), "attributes"),
            ("<r><a></r>".to_owned(), ""),
            ("<r>".to_owned(), "no end"),
            ("".to_owned(), "no end"),
            ("<r/><r/>".to_owned(), "two roots"),
            ("</r>".to_owned(), ""),
            ("<r a='1' a='2'/>".to_owned(), ""),
            ("<r>&#0;</r>".to_owned(), ""),
        ] {
            let refused = parse(document.as_bytes()).unwrap_err();
            assert!(refused.contains(said), "{}: {refused}", &document[..document.len().min(80)]);
        }
    }

    #[test]
    fn a_prefix_that_is_not_declared_is_left_out() {
        let read = parse(b"<x:r y:k='1'><x:a>1</x:a></x:r>").unwrap();
        assert_eq!((read.text_at("a"), read.attribute("k"), &*read.namespace), (Some("1"), Some("1"), ""));
    }

    #[test]
    fn many_namespaces_cost_no_more_than_their_length() {
        let declared: String = (0..120).map(|at| format!(" xmlns:n{at}='urn:{at}'")).collect();
        let read = parse(format!("<r{declared}>{}</r>", "<n119:a/>".repeat(1000)).as_bytes()).unwrap();
        assert_eq!(read.children.len(), 1000);
    }

    /// Of all names, those of attributes included, how many texts are kept for their namespaces.
    fn namespaces(element: &Element) -> HashSet<*const str> {
        let own = std::iter::once(&element.namespace).chain(element.attributes.iter().map(|(of, ..)| of));
        let own = own.map(Arc::as_ptr).collect::<HashSet<_>>();
        element.children.iter().map(namespaces).fold(own, |all, more| &all | &more)
    }

    #[test]
    fn a_namespace_is_kept_once_however_its_names_alternate() {
        let names = "<b:x c:k='1' b:k='2' k='3'/><c:x/><x/>".repeat(1000);
        let document = format!("<r xmlns:b='urn:{}' xmlns:c='urn:c'>{names}</r>", "b".repeat(1000));
        let read = parse(document.as_bytes()).unwrap();
        assert_eq!((read.children.len(), namespaces(&read).len()), (3000, 3));
    }

    #[test]
    fn what_would_be_kept_in_all_is_bounded() {
        let long = "n".repeat(NAMESPACE_MAX + 1);
        // The reader's own bound, as each name is looked for among them.
        let declared: String = (0..130).map(|at| format!(" xmlns:n{at}='urn:{at}'")).collect();
        for (document, said) in [
            (format!("<r xmlns='{long}'/>"), "namespace"),
            (format!("<r xmlns:a='{long}'><a:b/></r>"), "namespace"),
            (format!("<r xmlns:a='{long}' a:k='1'/>"), "namespace"),
            (format!("<r{declared}/>"), "128 namespace"),
            (format!("<r>{}</r>", "x".repeat(KEPT_MAX)), "MiB"),
            (format!("<r>{}</r>", format!("<a>{}</a>", "x".repeat(1000)).repeat(KEPT_MAX / 1000)), "MiB"),
            (format!("<r>{}</r>", format!("<a k='{}'/>", "x".repeat(1000)).repeat(KEPT_MAX / 1000)), "MiB"),
        ] {
            let refused = parse(document.as_bytes()).unwrap_err();
            assert!(refused.contains(said), "{}: {refused}", &document[..document.len().min(80)]);
        }
    }

    /// Takes nothing, and counts how often it is asked.
    struct Full(usize);

    impl Write for Full {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            self.0 += 1;
            Err(fmt::Error)
        }
    }

    #[test]
    fn what_has_no_room_is_not_written_first() {
        let names = "<b:x/>".repeat(ELEMENTS_MAX - 2);
        let document = format!("<r xmlns:b='{}'><b:y>{names}</b:y></r>", "b".repeat(NAMESPACE_MAX));
        let read = parse(document.as_bytes()).unwrap();
        assert_eq!(to_xml(&read.children, 4 << 10), None);
        let mut some = Bounded { xml: String::new(), most: 4 << 10 };
        assert!(read.write(&mut some).is_err() && some.xml.len() <= 4 << 10);
        let mut full = Full(0);
        assert!(read.write(&mut full).is_err());
        assert_eq!(full.0, 1);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(parse(&bytes));
        }

        #[test]
        fn any_text_comes_back_from_where_it_was_put(text in any::<String>()) {
            let element = parse(format!("<r k=\"{0}\">{0}</r>", escape(&text)).as_bytes()).unwrap();
            let kept: String = text.chars().map(|letter| if is_letter(letter) { letter } else { '\u{FFFD}' }).collect();
            // A carriage return is none any more (XML 1.0 §2.11), and white space in an attribute is a blank (§3.3.3).
            prop_assert_eq!(element.text.replace('\n', " "), kept.replace("\r\n", " ").replace(['\r', '\n'], " "));
            let blank = |text: &str| text.replace("\r\n", " ").replace(['\r', '\n', '\t'], " ");
            prop_assert_eq!(blank(element.attribute("k").unwrap()), blank(&kept));
        }
    }
}
