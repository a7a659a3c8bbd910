"""Many files: each input file becomes an output file in a folder, by any number of processes on any machines.

`job.run_folder` with a `RunConfig` whose output is a folder (`inputs.is_folder`). `inputs` finds the input files and
names their outputs, `state` is what the processes share, `work` takes files and does them, `finish` writes the manifest
and `_SUCCESS`. The run of a file is `run.job`.
"""
