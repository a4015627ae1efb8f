"""Networks trained before T: the first stage that is interpreted, and the judge of its pictures."""
