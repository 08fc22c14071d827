//! Static pods, as far as the API shows them.

use super::super::case::Case;
use super::super::case::Step::*;
use crate::api::v1::PodPhase::Running;
use crate::api::{Resource, STATIC_POD_ANNOTATION};
use crate::error::Error;

pub(super) const CASES: &[Case] = &[Case {
    name: "static-pods.only-a-node-shows-them",
    promise: "Nobody but a node can make a pod that passes for one of its static pods, or make one of a pod",
    needs: &[],
    steps: &[
        Always("a", &["forever"]),
        Phase("a", Running),
        Do(|scene| {
            Box::pin(async move {
                let mut found = scene.pod("a").ok_or("pod a is gone")?;
                found.meta_mut().resource_version = 0;
                found.meta_mut().annotations.insert(STATIC_POD_ANNOTATION.to_owned(), "x".to_owned());
                refused(scene.stage.client.update(found.clone()).await)?;
                found.meta_mut().name = "b".to_owned();
                refused(scene.stage.client.create(found).await)
            })
        }),
    ],
}];

fn refused<T>(answer: Result<T, Error>) -> Result<(), String> {
    match answer {
        Err(error @ Error::Invalid(_)) if error.to_string().contains(STATIC_POD_ANNOTATION) => Ok(()),
        Err(error) => Err(format!("the annotation is refused as: {error}")),
        Ok(_) => Err(format!("anybody may set the annotation {STATIC_POD_ANNOTATION}")),
    }
}
