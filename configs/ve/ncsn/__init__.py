"""NCSN (Song & Ermon 2019), with and without some of the techniques of NCSNv2."""
