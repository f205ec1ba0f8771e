# Writes emulator_configuration.hpp: where the emulator's headers and its compiler are, and a number made of the headers.
set(content "")
foreach(header IN LISTS HEADERS)
  file(READ ${header} text)
  string(APPEND content "${text}")
endforeach()
string(SHA256 hash "${content}")
string(SUBSTRING ${hash} 0 7 digits)
file(WRITE ${OUTPUT}
"#define SMLORA_EMULATOR_FOLDER \"${FOLDER}\"
#define SMLORA_EMULATOR_COMPILER \"${COMPILER}\"
#define SMLORA_EMULATOR_BUILD 0x${digits}
")
