# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317

# Text templates: input, and what list --format makes of it.
test_tmpl() {
	begin tmpl
	mkdir -p "$LIMA_HOME/foo"
	cat >"$LIMA_HOME/foo/lima.yaml" <<'YAML'
arch: s390x
images: [{location: /a, arch: x86_64}, {location: /b}]
cpus: 3
memory: 2GiB
user: {name: ann, comment: A, uid: 1234}
YAML
	while IFS='|' read -r t want; do
		[ -n "$t" ] || continue
		lc list --format "$(printf '%b' "$(printf %s "$t" | tr '!' '|')")" foo
		status 0
		outis "$(printf '%b' "$want")"
		ok "$t"
	done <<'TABLE'
{{.Name}}|foo
unix://{{.Name}}/sock }} x|unix://foo/sock }} x
{{ .Name }}-{{	.CPUs	}}|foo-3
{{.Config.CPUs}} {{.Config.User.UID}} {{.Config.SSH.LocalPort}}|3 1234 0
{{.Instance.Config.User.Name}}|ann
{{if eq .Status "Stopped"}}off{{else}}on{{end}}|off
{{if eq .Status "Running" "Stopped"}}off{{end}}|off
{{if ne .CPUs 3}}a{{else if gt .CPUs 2}}b{{else}}c{{end}}|b
{{if lt .CPUs 2}}a{{else if ge .CPUs 4}}b{{else}}c{{end}}|c
{{if and .Name (not .Protected)}}y{{end}}|y
{{and .Protected .Name}} {{or .Message .Name}}|false foo
{{or .Name (index .Errors 9)}}|foo
{{range .Config.Images}}[{{.Location}}]{{end}}|[/a][/b]
{{range $i, $x := .Config.Images}}{{if $i}},{{end}}{{$i}}={{$x.Location}}{{end}}|0=/a,1=/b
{{range .Config.Images}}{{if eq .Arch "x86_64"}}{{continue}}{{end}}{{.Location}}{{end}}|/b
{{range .Config.Images}}{{.Location}}{{break}}{{end}}.|/a.
{{range .Errors}}x{{else}}none{{end}}|none
{{with .Config.User}}{{.Name}} of {{$.Name}}{{end}}|ann of foo
{{with .Message}}x{{else}}no message{{end}}|no message
{{$n := 1}}{{if true}}{{$n = 2}}{{end}}{{$n}}|2
{{len .Config.Images}} {{len "abc"}}|2 3
{{(index .Config.Images 1).Location}}|/b
{{.CPUs ! printf "%03d"}}|003
{{printf "%s is %d%%, %v, %-4s! %q" .Name .CPUs .Protected "x" "q"}}|foo is 3%, false, x   | "q"
{{printf "%..3d" .CPUs}}|%!.(int=3)3d
{{print .Name .CPUs 4 "x"}}|foo3 4x
{{"{{"}} {{`raw "x"`}} {{"a\\tb\\x41"}}|{{ raw "x" a\tbA
a {{- .Name -}} b|afoob
a\n{{- /* note */ -}}\nb|ab
{{/* note */}}x|x
{{if .Name -}}  x  {{- end}}.|x.
{{.Errors}} {{.Config.Images}}|[] [map[arch:x86_64 location:/a] map[arch:s390x location:/b]]
{{json .Config.Images}}|[{"location":"/a","arch":"x86_64"},{"location":"/b","arch":"s390x"}]
{{.Config.User ! json}}|{"name":"ann","comment":"A","home":"/home/ann.linux","shell":"/bin/bash","uid":1234,"passwordlessSudo":true}
{{yaml .Errors}}|---\n[]
{{indent "a\\nb"}}|  a\n  b
{{indent 4 "a"}} {{missing .Message}} {{missing "-" .Message}} {{missing .Name}}|    a <missing> - foo
{{.Config.VMOpts.qemu.cpuType}}x|<no value>x
{{1.50}} {{0x10}} {{true}} {{'a'}}|1.5 16 true 97
TABLE
	while IFS='|' read -r t want; do
		[ -n "$t" ] || continue
		lc list --format "$t" foo
		status 1
		noout
		errhas "$(escaped "$want")"
		ok "refused: $t"
	done <<'TABLE'
{{.Unknown}}|template: format:1:2: executing "format" at <.Unknown>: can't evaluate field Unknown in type store.FormatData
x{{if .Name}}{{.Config.Nope}}{{end}}|template: format:1:22: executing "format" at <.Config.Nope>: can't evaluate field Nope
{{.Name.x}}|can't evaluate field x in type string
{{.Name|invalid go template: template: format:1: unclosed action
{{if .Name}}x|invalid go template: template: format:1: unexpected EOF
{{end}}|invalid go template: template: format:1: unexpected {{end}}
{{if .Name}}{{else}}{{else}}{{end}}|expected end; found {{else}}
{{nope .Name}}|invalid go template: template: format:1: function "nope" not defined
{{.Name .CPUs}}|can't give argument to non-function .Name
{{$x}}|undefined variable "$x"
{{"abc}}|unterminated quoted string
{{if false}}{{(}}{{end}}|invalid go template: 
{{eq .Name 1}}|incompatible types for comparison
{{index .Config.Images 5}}|index out of range: 5
{{range .Name}}x{{end}}|range can't iterate over foo
{{break}}|function "break" not defined
{{}}|missing value for command
TABLE

	t=$(awk 'BEGIN { for (i = 0; i < 2000; i++) printf "{{range $.Config.Images}}" }')
	lc list --format "$t"
	status 1
	errhas 'more than 100 levels'
	t=$(awk 'BEGIN { for (i = 0; i < 90; i++) printf "{{range $.Config.Images}}"; for (i = 0; i < 90; i++) printf "{{end}}" }')
	limit=20
	lc list --format "$t"
	status 1
	errhas 'does not come to an end'
	ok 'a template that would run for ever ends in a message'

	cat >>"$LIMA_HOME/foo/lima.yaml" <<'YAML'
message: |
  {{if .Config.SSH.LocalPort}}fixed{{else}}{{.Name}} in {{.Dir}}{{end}}
  {{.Instance.Name}} {{.Config.User.Name}}
YAML
	lc list --format '{{.Message}}' foo
	outis "foo in $LIMA_HOME/foo
foo ann"
	noerr
	lc list --json foo
	outhas "\"message\":\"foo in $LIMA_HOME/foo\\nfoo ann\""
	ok 'the message of an instance is a template'

	printf 'images: [{location: /a}]\nmessage: "{{if}}"\n' >"$LIMA_HOME/foo/lima.yaml"
	lc list foo
	outre '^foo +Broken'
	errhas 'message `{{if}}` is not a valid template: template: format:1: missing value for command'
	printf 'images: [{location: /a}]\nmessage: "{{.Nope}}"\n' >"$LIMA_HOME/foo/lima.yaml"
	lc list foo
	outre '^foo +Broken'
	errhas 'cannot execute template `{{.Nope}}`: '
	ok 'a bad message makes the instance Broken, and list says why'

	printf 'images: [{location: /a}]\nuser: {name: ann, home: "%s"}\n' '/h/{{if eq .User \"ann\"}}a{{else}}b{{end}}/{{.Nope}}/{{.UID}}' >"$LIMA_HOME/foo/lima.yaml"
	lc list --format '{{.Config.User.Home}}' foo
	outis "/h/a/<no value>/$(LIMA_HOME=$LIMA_HOME "$LIMACTL" list --format '{{.Config.User.UID}}' foo)"
	noerr
	ok 'a variable of the configuration; an unknown one is <no value>'
	printf 'images: [{location: /a}]\nuser: {name: ann, home: "%s"}\n' '/h/{{if}}' >"$LIMA_HOME/foo/lima.yaml"
	lc list --format '{{.Config.User.Home}}' foo
	outis '/h/{{if}}'
	errhas 'Couldn'\''t process `user.home` value `/h/{{if}}` as a template'
	ok 'a bad template in a variable is kept, with a warning'
}
