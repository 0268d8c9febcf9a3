"""From a spec to a job: rendering, submission, container runtimes, the code snapshot, queue queries."""
