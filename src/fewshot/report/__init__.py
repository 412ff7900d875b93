"""Layer 0, beside `base`: charts and pages. In: numbers and words. Out: SVG and HTML, which load nothing."""
