"""kachery inside other people's frameworks, each module beside the framework that it needs."""
