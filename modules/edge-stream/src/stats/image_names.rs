//! What a container's image is called: a runtime may answer with the image's id, and dashboards show names.

use std::collections::HashMap;

use cri::v1::{Container, Image};

/// The names of the images that are here, by their ids.
#[derive(Debug, Default)]
pub(crate) struct ImageNames(HashMap<String, String>);

impl ImageNames {
    /// Of each image its first tag, else its first digest.
    pub(crate) fn of(images: Vec<Image>) -> ImageNames {
        let named = images.into_iter().filter_map(|image| {
            let name = image.repo_tags.into_iter().chain(image.repo_digests).next()?;
            Some((image.id, name))
        });
        ImageNames(named.collect())
    }

    /// As it is to be shown: the runtime's word where that is no id of an image with a name.
    pub(crate) fn shown(&self, container: &Container) -> String {
        let told = container.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
        self.0.get(told).cloned().unwrap_or_else(|| told.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::ImageSpec;

    #[test]
    fn an_id_is_shown_as_the_name_and_a_name_as_it_is() {
        let image = |id: &str, tags: &[&str], digests: &[&str]| Image {
            id: id.into(),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            repo_digests: digests.iter().map(|digest| (*digest).to_owned()).collect(),
            ..Image::default()
        };
        let names = ImageNames::of(vec![
            image("sha256:a", &["busybox:1", "busybox:2"], &["busybox@sha256:x"]),
            image("sha256:b", &[], &["web@sha256:y"]),
            image("sha256:c", &[], &[]),
        ]);
        let shown = |told: &str| {
            let image = Some(ImageSpec { image: told.into(), ..ImageSpec::default() });
            names.shown(&Container { image, ..Container::default() })
        };
        let all = ["sha256:a", "sha256:b", "sha256:c", "busybox:1"].map(shown);
        assert_eq!(all, ["busybox:1", "web@sha256:y", "sha256:c", "busybox:1"]);
        assert_eq!(names.shown(&Container::default()), "");
    }
}
