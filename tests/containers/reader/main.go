// reader tells, as JSON, what compose and BuildKit themselves read in the files that they are given:
//
//	reader compose FILE...     the model of a project, by compose-go: what `docker compose config --format json` prints
//	reader dockerfile FILE     stages and instructions, by BuildKit's parser, variables expanded
//	reader context FOLDER      the files of a build context, by BuildKit's rules for .dockerignore
//
// It exits 1 with the parser's own words where a file is wrong.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func main() {
	told, err := read(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(append(told, '\n'))
}

func read(words []string) ([]byte, error) {
	if len(words) < 2 {
		return nil, errors.New("expected: reader compose FILE... | dockerfile FILE | context FOLDER")
	}
	switch words[0] {
	case "compose":
		return readCompose(words[1:])
	case "dockerfile":
		return readDockerfile(words[1])
	case "context":
		return readContext(words[1])
	}
	return nil, fmt.Errorf("there is no %q", words[0])
}

// readCompose loads a project strictly (unknown fields are errors) and without the caller's environment.
func readCompose(files []string) ([]byte, error) {
	options, err := cli.NewProjectOptions(files, cli.WithWorkingDirectory(filepath.Dir(files[0])), cli.WithProfiles([]string{"*"}))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.MarshalJSON()
}

// A stage of a Dockerfile; Env is what it ends with.
type stage struct {
	Name, Base string
	Env        map[string]string
	Steps      []step
}

// A step is one instruction. Only the fields of its kind are set.
type step struct {
	Kind    string            // RUN, COPY, WORKDIR, USER, CMD, ENTRYPOINT, HEALTHCHECK, EXPOSE, ENV
	Text    string            // as written, for messages
	Command []string          `json:",omitempty"` // RUN, CMD, ENTRYPOINT, HEALTHCHECK (without CMD or CMD-SHELL)
	Shell   bool              `json:",omitempty"` // … and whether a shell reads it
	Caches  []string          `json:",omitempty"` // RUN: where it wants a cache mounted
	From    string            `json:",omitempty"` // COPY
	Sources []string          `json:",omitempty"`
	Target  string            `json:",omitempty"` // COPY, WORKDIR, USER
	Env     map[string]string `json:",omitempty"` // as it is while this step runs
	Ports   []string          `json:",omitempty"`
}

func readDockerfile(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	for _, warning := range parsed.Warnings {
		return nil, fmt.Errorf("%s: %s", path, warning.Short)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, err
	}
	told := []stage{}
	for _, one := range stages {
		read, err := readStage(one, told)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		told = append(told, read)
	}
	return json.MarshalIndent(told, "", " ")
}

// The environment that the official python images begin with, as far as a step can see it.
var imageEnv = map[string]string{"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}

func readStage(one instructions.Stage, before []stage) (stage, error) {
	read := stage{Name: one.Name, Base: one.BaseName, Env: copied(imageEnv)}
	for _, earlier := range before {
		if earlier.Name != "" && earlier.Name == one.BaseName {
			read.Env = copied(earlier.Env)
		}
	}
	for _, command := range one.Commands {
		if expandable, ok := command.(instructions.SupportsSingleWordExpansion); ok {
			lex := shell.NewLex('\\')
			err := expandable.Expand(func(word string) (string, error) {
				result, err := lex.ProcessWordWithMatches(word, env(read.Env))
				return result.Result, err
			})
			if err != nil {
				return read, err
			}
		}
		next, err := readStep(command, read.Env)
		if err != nil {
			return read, err
		}
		read.Steps = append(read.Steps, next)
	}
	return read, nil
}

func readStep(command instructions.Command, variables map[string]string) (step, error) {
	next := step{Kind: strings.ToUpper(command.Name()), Text: fmt.Sprint(command)}
	switch one := command.(type) {
	case *instructions.RunCommand:
		next.Command, next.Shell, next.Env = one.CmdLine, one.PrependShell, copied(variables)
		if len(one.Files) > 0 {
			return next, fmt.Errorf("%s: here-documents are not read", next.Text)
		}
		if err := one.Expand(func(word string) (string, error) { return word, nil }); err != nil {
			return next, err
		}
		for _, mount := range instructions.GetMounts(one) {
			if mount.Type != instructions.MountTypeCache {
				return next, fmt.Errorf("%s: a mount of type %s is not read", next.Text, mount.Type)
			}
			next.Caches = append(next.Caches, mount.Target)
		}
	case *instructions.CopyCommand:
		next.From, next.Sources, next.Target = one.From, one.SourcePaths, one.DestPath
		if one.Chown != "" || one.Chmod != "" || len(one.SourceContents) > 0 {
			return next, fmt.Errorf("%s: only plain COPY is read", next.Text)
		}
	case *instructions.EnvCommand:
		for _, pair := range one.Env {
			variables[pair.Key] = pair.Value
		}
	case *instructions.WorkdirCommand:
		next.Target = one.Path
	case *instructions.UserCommand:
		next.Target = one.User
	case *instructions.CmdCommand:
		next.Command, next.Shell = one.CmdLine, one.PrependShell
	case *instructions.EntrypointCommand:
		next.Command, next.Shell = one.CmdLine, one.PrependShell
	case *instructions.HealthCheckCommand:
		if len(one.Health.Test) > 0 {
			next.Command, next.Shell = one.Health.Test[1:], one.Health.Test[0] == "CMD-SHELL"
		}
	case *instructions.ExposeCommand:
		next.Ports = one.Ports
	default:
		return next, fmt.Errorf("%s: this instruction is not read", next.Text)
	}
	return next, nil
}

// env is what the shell's expansion asks for variables.
type env map[string]string

func (variables env) Get(name string) (string, bool) {
	value, found := variables[name]
	return value, found
}

func (variables env) Keys() []string {
	names := []string{}
	for name := range variables {
		names = append(names, name)
	}
	return names
}

func copied(from map[string]string) map[string]string {
	to := map[string]string{}
	for name, value := range from {
		to[name] = value
	}
	return to
}

func readContext(folder string) ([]byte, error) {
	patterns := []string{}
	if ignore, err := os.Open(filepath.Join(folder, ".dockerignore")); err == nil {
		defer ignore.Close()
		if patterns, err = ignorefile.ReadAll(ignore); err != nil {
			return nil, err
		}
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	files := []string{}
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		ignored, err := matcher.MatchesOrParentMatches(relative)
		if err == nil && !ignored {
			files = append(files, relative)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(files, "", " ")
}
