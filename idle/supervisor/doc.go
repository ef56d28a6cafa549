// Package supervisor runs an agent's program under an idle.Manager: it forwards signals, reaps what the program leaves behind,
// leaves word of how it ended (lifecycle.ExitCodeFile), and ends it when it is idle.
//
// The program is the first of a process group of its own. SIGTERM and SIGINT go to the whole group, and what is left of it, or of what has
// left it, is waited for until the grace is over, and then killed; so an agent that a shell or a launcher has started is stopped as one
// that runs by itself. Where there is a terminal, the group has it in the foreground as long as the supervisor's would have.
//
// A supervisor that is started in a Pod whose word is 42 holds: the agent before it was idle and is about to be deleted, so none
// may begin to work. If nobody deletes it the word is taken back and the supervisor fails, so that the next start works under
// a status that no longer says 42. It never ends with 42 on the strength of the file, which the agent could have written.
package supervisor
