"""
    Step(operation, arguments, value, setting)

One operation of a formula. `arguments` are numbers of earlier steps, counted from 1; `value` is the array (or number) of
a constant; `setting` is an exponent, or an index counted from 1.
"""
struct Step{O,V}
    arguments::Vector{Int}
    value::V
    setting::Float64
end
Step(operation::Symbol, arguments, value, setting) = Step{operation,typeof(value)}(arguments, value, setting)

run_step(::Step{:input}, x) = x
run_step(s::Step{:constant}, x) = s.value
run_step(::Step{:add}, x, a, b) = a .+ b
run_step(::Step{:subtract}, x, a, b) = a .- b
run_step(::Step{:multiply}, x, a, b) = a .* b
run_step(::Step{:divide}, x, a, b) = a ./ b
run_step(::Step{:sin}, x, a) = sin.(a)
run_step(::Step{:cos}, x, a) = cos.(a)
run_step(::Step{:exp}, x, a) = exp.(a)
run_step(::Step{:log}, x, a) = log.(a)
run_step(::Step{:sigmoid}, x, a) = NNlib.sigmoid.(a)
run_step(::Step{:softplus}, x, a) = NNlib.softplus.(a)
run_step(::Step{:sum}, x, a) = sum(a)
# Axes are in reverse order here: Python's first one is the last, and its last one is the first.
run_step(s::Step{:item}, x, a::AbstractVector) = a[Int(s.setting)]
run_step(s::Step{:item}, x, a::AbstractArray) = a[ntuple(_ -> Colon(), ndims(a) - 1)..., Int(s.setting)]
run_step(s::Step{:column}, x, a::AbstractVector) = a[Int(s.setting)]
run_step(s::Step{:column}, x, a::AbstractArray) = a[Int(s.setting), ntuple(_ -> Colon(), ndims(a) - 1)...]
run_step(::Step{:logsumexp}, x, a::AbstractVector) = NNlib.logsumexp(a)
run_step(::Step{:logsumexp}, x, a::AbstractArray) = dropdims(NNlib.logsumexp(a; dims=1); dims=1)
function run_step(s::Step{:power}, x, a)
    # The slope of a .^ 0 is 0 everywhere; the rule of powers would say 0 * Inf at 0.
    iszero(s.setting) && return one.(a)
    # A whole exponent as an integer, so that a negative base is allowed.
    isinteger(s.setting) && return integer_power(a, Int(s.setting))
    p = convert(eltype(x), s.setting)
    return a .^ p
end
integer_power(a, p::Int) = a .^ p

"""
    program_value(steps, x)

The value of the last step of a formula for the argument `x`.
"""
function program_value(steps::Vector, x)
    values = Zygote.Buffer(Vector{Any}(undef, length(steps)))
    for (number, step) in enumerate(steps)
        values[number] = run_step(step, x, map(i -> values[i], Tuple(step.arguments))...)
    end
    return values[length(steps)]
end

"""
    program_gradient(steps, x)

The gradient of the last step, a scalar, with respect to `x`, by Zygote.
"""
function program_gradient(steps::Vector, x)
    pulled = only(Zygote.gradient(argument -> only(program_value(steps, argument)), x))
    return pulled === nothing ? zero(x) : pulled
end
