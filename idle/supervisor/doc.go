// Package supervisor runs an agent's program under an idle.Manager: it forwards signals, reaps what the program leaves behind,
// leaves word of how it ended (lifecycle.ExitCodeFile), and ends it when it is idle.
//
// A supervisor that is started in a Pod whose word is 42 holds: the agent before it was idle and is about to be deleted, so none
// may begin to work. If nobody deletes it the word is taken back and the supervisor fails, so that the next start works under
// a status that no longer says 42. It never ends with 42 on the strength of the file, which the agent could have written.
package supervisor
