"""The outgoing webhook: every change of a request, signed, kept until it is delivered, never in the way of the desk."""
