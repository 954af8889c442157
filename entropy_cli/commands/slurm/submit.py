"""The text of the scripts that submit jobs to Slurm; @name@ is filled in."""

SUBMIT_ARRAY = """\
#!/bin/bash
# Submits the array, and the merge to run when all tasks have ended; the merge reports missing shards.
set -eu
array=$(sbatch --parsable @folder@/estimate.sbatch)
"""

# A run that Slurm requeues has not ended, so the array waits for it.
SUBMIT_AFTER_PILOT = """\
#!/bin/bash
# Submits the pilot; the array, to run when it has succeeded; and the merge, to run when that has ended.
# If the pilot fails Slurm cancels the array, and the merge reports that the shards are missing.
set -eu
pilot=$(sbatch --parsable @folder@/pilot.sbatch)
pilot=${pilot%%;*}
echo "pilot for the temperature: job $pilot"
array=$(sbatch --parsable --dependency=afterok:"$pilot" --kill-on-invalid-dep=yes \\
  @folder@/estimate.sbatch)
"""

# afterany, not afterok: a task that exits with 4 is done, and the merge logs what is missing.
SUBMIT_MERGE = """\
array=${array%%;*}
echo "array of shards: job $array"
merge=$(sbatch --parsable --dependency=afterany:"$array" @folder@/merge.sbatch)
echo "their merge: job ${merge%%;*}"
"""

SUBMIT_NODES = """\
#!/bin/bash
set -eu
job=$(sbatch --parsable @folder@/estimate.sbatch)
echo "job ${job%%;*}"
"""
