"""The report of a task: `words` are its numbers and sentences, `figures` what its scripts draw; HTML, CSS and
JavaScript lie beside them.
"""
