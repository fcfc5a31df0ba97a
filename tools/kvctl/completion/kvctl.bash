# SPDX-License-Identifier: Apache-2.0
# bash completion for kvctl. kvctl itself says what may follow, so that this never differs from it.
_kvctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} kind word rest
  local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
  local kvctl=${COMP_WORDS[0]/#\~/$HOME}
  [[ $cur == "=" ]] && cur=
  COMPREPLY=()
  {
    IFS= read -r kind
    while IFS=$'\t' read -r word rest; do
      COMPREPLY+=("$(printf '%q' "$word")")
    done
  } < <("$kvctl" __complete "${words[@]}" 2>/dev/null)
  case $kind in
    files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    *) [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace ;;
  esac
  return 0
}
complete -F _kvctl kvctl
