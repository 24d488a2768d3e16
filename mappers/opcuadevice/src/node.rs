//! Where a node is: its id, and the namespace that its index stands for (Part 6 §5.3.1.10).

use framework::InvalidSetting;
use opcua_types::{NamespaceMap, NodeId};

/// What stands before a namespace that is named by its URI.
const URI_PREFIX: &str = "nsu=";

/// A node as a Device names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    id: NodeId,
    /// The namespace by its URI, whose index servers give out anew at each start; then the index in `id` does not count.
    uri: Option<String>,
}

impl Node {
    /// From `ns=2;s=NAME`, or `nsu=URI;s=NAME`, or the first and a URI of its own.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(key: &str, text: &str, uri: Option<&str>) -> Result<Self, InvalidSetting> {
        let wrong = || {
            InvalidSetting::new(format!(
                "setting `{key}` is `{text}`, which is no node id; write ns=2;s=NAME, ns=2;i=NUMBER, or g= or b= for the others"
            ))
        };
        let text = text.trim();
        let (uri, rest) = match text.strip_prefix(URI_PREFIX) {
            Some(named) => {
                let (uri, rest) = named.split_once(';').ok_or_else(wrong)?;
                (Some(uri.to_owned()), rest)
            }
            None => (uri.map(str::to_owned), text),
        };
        let id = rest.parse().map_err(|_| wrong())?;
        Ok(Node { id, uri })
    }

    /// The id as the server counts its namespaces now.
    ///
    /// # Errors
    /// A sentence, when the server has no such namespace.
    pub(crate) fn resolve(&self, namespaces: &NamespaceMap) -> Result<NodeId, String> {
        let Some(uri) = &self.uri else { return Ok(self.id.clone()) };
        match namespaces.get_index(uri) {
            Some(namespace) => Ok(NodeId { namespace, ..self.id.clone() }),
            None => Err(format!("the server has no namespace `{uri}`; correct `namespaceUri`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, uri: Option<&str>) -> Result<Node, String> {
        Node::read("nodeID", text, uri).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn node_ids_are_read_as_every_tool_writes_them() {
        let namespaces = NamespaceMap::new();
        for text in [
            "i=2258",
            "ns=2;i=2",
            "ns=3;s=\"DB1\".\"x\"",
            "ns=2;s=a;b=c",
            "ns=4;g=72962b91-fa75-4ae6-8d28-b404dc7daf63",
            "ns=1;b=M/RbKBsRVkePCePcx24oRA==",
        ] {
            let id = read(text, None).unwrap().resolve(&namespaces).unwrap();
            assert_eq!(id.to_string(), text);
        }
        for wrong in ["", "DB1", "ns=2", "ns=70000;i=1", "ns=2;i=x", "ns=2;g=1", "nsu=urn:x"] {
            let refusal = read(wrong, None).unwrap_err();
            assert!(refusal.contains("`nodeID`") && refusal.contains("ns=2;s=NAME"), "{wrong}: {refusal}");
        }
    }

    #[test]
    fn a_namespace_by_its_uri_has_the_index_of_the_day() {
        let mut namespaces = NamespaceMap::new();
        namespaces.add_namespace("urn:other");
        let index = namespaces.add_namespace("urn:plant");
        for node in [read("nsu=urn:plant;s=x", None), read("ns=9;s=x", Some("urn:plant"))] {
            assert_eq!(node.unwrap().resolve(&namespaces).unwrap(), NodeId::new(index, "x"));
        }
        let refusal = read("s=x", Some("urn:gone")).unwrap().resolve(&namespaces).unwrap_err();
        assert!(refusal.contains("urn:gone"), "{refusal}");
    }
}
