// Random inputs are new in every run, unless BITLOOM_SEED fixes them: a run of .ci/run takes its seed from the
// commit, so that it can be repeated.
import fc from 'fast-check';

const seed = Number(process.env.BITLOOM_SEED);
if (Number.isInteger(seed) && seed > 0) fc.configureGlobal({ seed });
