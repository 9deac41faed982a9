//! Metrics in the text format of Prometheus: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text},
    metrics::TypedMetric,
    registry::Registry,
};

/// What is sent as the type of the text.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All that is registered.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    #[expect(clippy::expect_used, reason = "only what is written to could fail")]
    prometheus_text::encode(&mut text, registry).expect("a string takes all that is written to it");
    text
}

/// A metric with one value and no labels. To a counter's name `_total` is added.
pub(crate) fn single<M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: M,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, M::TYPE)?)
}

/// A metric with a value for each set of labels.
pub(crate) fn labelled<L: EncodeLabelSet, M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, M::TYPE)?;
    for (labels, sample) in samples {
        sample.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
