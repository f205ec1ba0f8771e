// Products of a warpgroup: PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate".
#pragma once

#include "device/runtime.hpp"
#include "runtime/async_copy.hpp"
#include "runtime/warp.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace smlora::emulator {

/// An instruction, as all four warps of the warpgroup must issue it.
struct WgmmaShape {
    Format format;
    unsigned n;
    bool a_in_registers;  ///< else it has a descriptor
    bool a_strided, b_strided;
    std::uint64_t a, b;
    bool accumulate = true;  ///< else d = a b

    friend bool operator==(const WgmmaShape&, const WgmmaShape&) = default;
};

/// The products of one warp, 16 rows of each instruction's 64, in the order in which they were issued. Accumulators and
/// fragments in flight are kept here; their registers are poisoned from the first instruction until a wait that covers
/// the last.
class WgmmaQueue final : public AsyncWork {
 public:
    void begin(Machine& machine, Warp& warp);

    /// `frames`: for each lane, an address below all variables that it has now.
    void fence(const Operands& frames);
    /// `d` are the accumulators of the 32 lanes, `a` their fragments, of an instruction that has any.
    void issue(const WgmmaShape& shape, const std::array<float*, 32>& d, const std::array<unsigned*, 32>& a,
               Where where);
    void commit();
    void wait(unsigned pending_groups, const Operands& frames);
    /// The warp has ended.
    void end();

    bool perform_one() override;

    /// All instructions issued so far.
    [[nodiscard]] const std::vector<WgmmaShape>& issued() const { return issued_; }

 private:
    template <class T>
    struct InFlight {
        std::array<T*, 32> registers;
        unsigned count;         ///< of each lane
        std::vector<T> values;  ///< [32][count]
        unsigned last_group;    ///< the newest that works on them
        Where where;            ///< the last instruction
    };
    using Accumulators = InFlight<float>;
    using Fragments = InFlight<unsigned>;
    template <class T>
    using Set = std::deque<std::unique_ptr<InFlight<T>>>;
    struct Item {
        WgmmaShape shape;
        Accumulators* accumulators;
        const Fragments* fragments;  ///< of a; null: in shared memory
        unsigned group;
        unsigned seen;  ///< Runtime::now when the last of the warp's lanes fenced
        Where where;
    };

    /// A lane's local memory as it was at the last fence.
    struct Stack {
        std::uintptr_t low = 0;
        std::vector<char> bytes;

        /// The copy of these bytes; null if they were not there yet.
        [[nodiscard]] char* find(const void* memory, std::size_t count);
    };

    [[noreturn]] void refuse(Where where, const std::string& why) const;
    /// Those that already are in flight in these registers, or null.
    template <class T>
    InFlight<T>* find(const Set<T>& set, const std::array<T*, 32>& registers, unsigned count, Where where) const;
    template <class T>
    InFlight<T>& take(Set<T>& set, const std::array<T*, 32>& registers, unsigned count);
    /// `frames` as for wait(), or null.
    template <class T>
    void check_untouched(const InFlight<T>& held, const Operands& frames) const;
    /// Returns whether any were finished.
    template <class T>
    bool give_back(Set<T>& set, unsigned groups_done, const Operands& frames);
    Accumulators& accumulators_of(const std::array<float*, 32>& d, unsigned count, Where where);
    Fragments& fragments_of(const std::array<unsigned*, 32>& a, Where where);
    static void read_fragments(const Item& item, float (&a)[16][16]);
    void multiply(const Item& item);
    void read_operand(const Item& item, std::uint64_t descriptor, bool strided, unsigned first, unsigned count,
                      float* to) const;
    void check_seen(const Item& item, unsigned offset) const;

    Machine* machine_ = nullptr;
    Warp* warp_ = nullptr;
    std::vector<WgmmaShape> issued_;
    std::deque<Item> items_;
    Set<float> accumulators_;
    Set<unsigned> fragments_;
    std::array<Stack, 32> fenced_stacks_;
    unsigned group_ = 0;   ///< the one that is being put together
    bool fenced_ = false;  ///< since accumulators were last given back
};

}  // namespace smlora::emulator
