"""Charts and pages. In: numbers and words. Out: SVG and HTML, which load nothing."""
