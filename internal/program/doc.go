// Package program is what the programs that serve have in common: their command line, log, version, way to the API server, and
// the order in which their parts stop. What a program does is its own.
package program
